"""The engine role: one voice, and the streams rendered with it. The only part of the daemon that imports flow."""
