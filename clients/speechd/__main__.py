"""`python -m glowd.clients.speechd CONFIG`: the module, as speech-dispatcher starts it."""

import sys

from glowd.clients.speechd.module import main

if __name__ == "__main__":
    sys.exit(main())
