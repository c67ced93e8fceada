"""The service: glowd. Gateway, engines and speaker, each its own process, and the protocols between them."""
