"""Training: recordings, losses, optimisers, and runs that survive interruption."""
