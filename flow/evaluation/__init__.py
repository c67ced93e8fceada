"""Judging: systems side by side, in figures and by ear."""
