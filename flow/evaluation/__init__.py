"""Evaluation: systems side by side, measured and by ear."""
