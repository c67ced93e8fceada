"""The plug-ins with the real frameworks. They are heavy, so they run in an environment of their own: `make test-fronts`."""
