"""Published checkpoints: files read without running anything in them, and translated to our own."""
