"""Stand-ins for processes and devices, as real as the tests need them."""
