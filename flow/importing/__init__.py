"""Published checkpoints, translated to our own."""
