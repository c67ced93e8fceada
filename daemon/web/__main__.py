"""`python -m glowd.daemon.web`: the web role."""

from glowd.daemon.web.process import main

if __name__ == "__main__":
    main()
