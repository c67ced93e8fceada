"""The moving average of a network's weights, which is what a run validates and exports."""

import copy

import torch

from glowd.flow.network.registry import Network


class Ema:
    """An exponential moving average. `network` has the averaged weights; it has no gradients."""

    def __init__(self, network: Network, decay: float) -> None:
        """Begins with the weights of `network`; `decay` is the share of the average that a late update keeps."""
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, network: Network, steps: int) -> None:
        """Move towards the weights that `network` has after `steps` steps."""
        # An early average forgets fast, because the first weights are random.
        keep = min(self.decay, (steps + 1) / (steps + 20))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - keep)
