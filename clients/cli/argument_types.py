"""The types of arguments of glowctl: each reads a text, or says what is allowed."""

import argparse
from typing import Any

from glowd.clients.upstream import Manner
from glowd.clients.upstream.interface import FASTEST, SLOWEST
from glowd.daemon.wire.fields import MAX_RATE_HZ, MIN_RATE_HZ

QUIETEST_DB, LOUDEST_DB = -120, 24
"""Of a stream on the device (wire.Gain)."""


def count(low: int) -> Any:
    """An argument type: an integer of at least `low`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"expected a whole number >= {low}, got {text!r}")
        return int(text)

    return parse


def rate(text: str) -> int:
    """An argument type: samples in a second."""
    if not text.isdecimal() or not MIN_RATE_HZ <= int(text) <= MAX_RATE_HZ:
        raise argparse.ArgumentTypeError(f"expected Hz from {MIN_RATE_HZ} to {MAX_RATE_HZ}, got {text!r}")
    return int(text)


def speed(text: str) -> float:
    """An argument type: how many times as fast."""
    try:
        return Manner(float(text)).rate
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a factor from {SLOWEST:g} to {FASTEST:g}, got {text!r}") from None


def seconds(text: str) -> float:
    """An argument type: seconds, more than 0 and less than an hour."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError(f"expected seconds > 0 and < 3600, got {text!r}")
    return value


def decibels(text: str) -> float:
    """An argument type: a volume in dB, as the protocol has it."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not QUIETEST_DB <= value <= LOUDEST_DB:
        raise argparse.ArgumentTypeError(f"expected dB from {QUIETEST_DB} to {LOUDEST_DB}, got {text!r}")
    return value
