"""The optional Wyoming process, for Home Assistant: glowd.clients.wyoming under the supervisor."""
