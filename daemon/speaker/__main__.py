"""`python -m glowd.daemon.speaker`: the speaker role."""

from glowd.daemon.speaker.process import main

if __name__ == "__main__":
    main()
