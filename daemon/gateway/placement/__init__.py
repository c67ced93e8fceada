"""The open streams, and which engine each is in: who may open one, where it is placed, and when it moves."""
