"""The voice: mel front end, WaveGlow, streaming inversion, training. Knows no socket, session or sound device."""
