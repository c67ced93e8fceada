"""`python -m glowd.daemon.wyoming`: the wyoming role."""

from glowd.daemon.wyoming.process import main

if __name__ == "__main__":
    main()
