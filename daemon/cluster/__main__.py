"""`python -m glowd.daemon.cluster`: the cluster role."""

from glowd.daemon.cluster.process import main

if __name__ == "__main__":
    main()
