"""Muon: momentum whose update is orthogonalised, for weights that are matrices.

Source: Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024),
https://kellerjordan.github.io/posts/muon/. For a momentum M = U S V^T the step is near U V^T: every direction that occurs in
the gradient moves equally fast. A Newton-Schulz iteration computes it without a singular value decomposition:

    X <- X * (a + b (X^T X) + c (X^T X)^2),   applied to singular values: s <- a s + b s^3 + c s^5

with the published coefficients, chosen for speed: small values grow 3.4-fold in each round, and after five rounds a value
that was above about 0.01 of the Frobenius norm lies between 0.7 and 1.2. A convolution [out, in, kernel] is a matrix
[out, in * kernel].
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

A, B, C = 3.4445, -4.7750, 2.0315
ROUNDS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices [N, rows, columns] -> the same shape, each with its singular values brought near 1 (zero stays zero)."""
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x if wide is matrices else x.mT


def _by_shape(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            groups.setdefault(parameter.shape, []).append(parameter)
    return list(groups.values())


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; parameters of equal shape run as one batch. Weight decay is decoupled."""

    def __init__(
        self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply the gradients that the parameters hold. A closure is not supported: pass none."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            for alike in _by_shape(group["params"]):
                self._step_alike(alike, group)

    def _step_alike(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        momenta = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        updates = orthogonalise(torch.stack(ahead).flatten(2))
        # A tall matrix has fewer directions than rows: its entries would otherwise move less than a square one's.
        lr = group["lr"] * max(1.0, updates.shape[1] / updates.shape[2]) ** 0.5
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, [u.reshape(parameters[0].shape) for u in updates], alpha=-lr)
