"""The networks and their layers: definitions and likelihoods."""
