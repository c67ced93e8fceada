"""Wyoming, the protocol of Home Assistant's voice services: texts in, audio back while they still arrive.

Rules: a client of the daemon like any other. The package `wyoming` (extra `wyoming`) is imported here only.
"""
