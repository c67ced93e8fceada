"""First values of weights and constants, which a network without values does not need."""

from collections.abc import Callable

import torch
from torch import Tensor


def initial(shape: tuple[int, ...], values: Callable[[], Tensor]) -> Tensor:
    """`values()`, which has that shape; without values on the meta device, where networks have shapes only.

    Arithmetic there makes torch import its compiler, which takes longer than to load a voice.
    """
    empty = torch.empty(shape)
    return empty if empty.is_meta else values()
