"""The web process: a client of the daemon that serves a browser page, and what other programs fetch by HTTP.

Rules: knows of the daemon only the wire protocol and its telemetry, as every client does. Nothing here imports torch.
starlette, uvicorn and websockets (the extra `web`) are imported here and nowhere else. app.py has the routes, protection.py
who may use them.
"""
