"""`python -m glowd.daemon.engine`: the engine role."""

from glowd.daemon.engine.process import main

if __name__ == "__main__":
    main()
