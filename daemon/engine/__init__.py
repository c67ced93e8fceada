"""The engine role: one voice, and the streams rendered with it. The only role that imports flow."""
