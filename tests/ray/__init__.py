"""Engines on a Ray cluster of this machine, in an environment of their own: `make test-ray`."""
