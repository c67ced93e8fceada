"""The networks: definitions, likelihoods, and what a network is made of."""
