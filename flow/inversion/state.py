"""The state of streams between steps. It has one owner, and is copied by the index of a slot."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(slots=True)
class State:
    """Of B streams. Empty where a voice needs none: no source, no lapped squeeze, not causal."""

    past: Tensor
    """[B, R, C]: the last inputs of every dilated layer of every flow; R is the sum of their reach in groups."""
    harmonic_past: Tensor
    """[B, R, C]: the same of the harmonic layer, which has other channels."""
    pulses: Tensor
    """[B, 2, G]: the last block of both pulse trains, which the next group's window begins with."""
    phase: Tensor
    """[B] float64: cycles of the source at the centre of the next frame."""
    tail: Tensor
    """[B, G]: second half of the last lapped group, still to be overlapped."""

    def read(self, slots: Tensor, into: "State") -> None:
        """Copy the streams at `slots` [B] into a state of B streams."""
        for field in fields(self):
            torch.index_select(getattr(self, field.name), 0, slots, out=getattr(into, field.name))

    def put(self, slots: Tensor, state: "State") -> None:
        """Write B streams to their slots."""
        for field in fields(self):
            getattr(self, field.name)[slots] = getattr(state, field.name)
