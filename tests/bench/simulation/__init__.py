"""Simulations of many engines and streams over a day, on the daemon's own scheduler, placement, admission and policy."""
