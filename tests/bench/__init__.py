"""Benchmarks: `python -m tests.bench`. RESULTS.md and results.json beside this file are their products."""
