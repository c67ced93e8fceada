"""The command line of clients: glowctl, the demo, and what they share. It uses the library, never the reverse."""
