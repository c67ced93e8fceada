"""Tests of daemon/cluster."""
