"""Training: recordings, losses, optimisers, and runs that can be interrupted and resumed."""
