"""Tests. What stands here runs before any of them, and before numpy and torch are imported."""

import os

# Threads that wait for one another on a busy machine take longer than one alone, much longer. And sums in one order make
# a test's process and the processes it starts agree to the last bit.
os.environ.setdefault("OMP_NUM_THREADS", "1")
