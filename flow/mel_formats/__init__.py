"""The mels of other toolkits: what they are (description.py, presets.py), how they become the voice's (conversion.py),
and how to tell that frames cannot be what they are said to be (plausibility.py).

Rules: numpy only and no I/O but statistics.py, which reads files; the gateway and the clients import this.
"""
