"""Inversion of a WaveGlow as fast as a device allows: folded weights, explicit state, one step at a time."""
