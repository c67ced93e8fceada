"""Engines that come and go with the load: how many there should be, which of them end, and a role that has Ray run them."""
