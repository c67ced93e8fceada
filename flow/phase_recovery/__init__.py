"""Phase recovery: speech from a mel without a network."""
