"""Long runs with everything on: `make soak`."""
