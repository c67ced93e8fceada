"""glowd as a service of systemd: its unit files, and what they need. The daemon itself imports nothing of this."""
