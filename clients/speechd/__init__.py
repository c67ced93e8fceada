"""The output module of speech-dispatcher, through which Orca and other screen readers speak by glowd.

Rules: a client of the daemon like any other, started by speech-dispatcher for each user. Standard output is for the protocol
alone; everything else goes to standard error, which speech-dispatcher keeps in a log.
"""
