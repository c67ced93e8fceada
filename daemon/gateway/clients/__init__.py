"""Who is connected to the gateway: who they are, what they may take, and what waits to be sent to each."""
