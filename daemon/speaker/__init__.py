"""The speaker role: the mixer and the sound device."""
