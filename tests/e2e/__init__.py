"""The daemon as its users meet it: real processes, real sockets, real frames."""
