"""The gateway process: clients, their streams, and the engines and speaker behind it. It imports neither of these."""
