"""Engines that come and go with the load: how many there should be, and which of them end. No process, no socket."""
