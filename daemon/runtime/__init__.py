"""What all roles share: how a process is started, watched and stopped, and where its sockets are."""
