"""`python -m glowd.daemon.gateway`: the gateway process."""

from glowd.daemon.gateway.process import main

if __name__ == "__main__":
    main()
