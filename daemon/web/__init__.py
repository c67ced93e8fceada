"""The web role: runs the web process of glowd.clients.web under the supervisor. Optional: `[web] enabled`."""
