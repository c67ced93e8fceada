"""The engine role: one voice on one device, and the streams rendered with it. The only part of the daemon that runs flow."""
