"""Muon: updates are near orthogonal for every shape, equal shapes share a batch without mixing, and a loss falls."""

import copy

import pytest
import torch
from torch import nn

from glowd.flow.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 40), (2, 40, 6)])
def test_updates_are_near_orthogonal(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    # Singular values over two decades, far from orthogonal.
    rank = min(shape[1:])
    u, v = (
        torch.linalg.qr(torch.randn(shape[0], shape[1], rank))[0],
        torch.linalg.qr(torch.randn(shape[0], shape[2], rank))[0],
    )
    matrices = u @ torch.diag(torch.logspace(0, -2, rank)) @ v.mT
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.6 and values.max() < 1.3
    # The directions are kept: U^T X V is diagonal.
    diagonal = u.mT @ orthogonalise(matrices) @ v
    assert (diagonal - torch.diag_embed(diagonal.diagonal(dim1=1, dim2=2))).abs().max() < 1e-4


def test_zero_gradient_moves_nothing() -> None:
    assert orthogonalise(torch.zeros(1, 4, 6)).abs().max() == 0


def test_equal_shapes_in_a_batch_move_as_alone() -> None:
    torch.manual_seed(0)
    together = [nn.Parameter(torch.randn(4, 3, 2)) for _ in range(3)]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    optimisers = [Muon(together), *[Muon([p]) for p in alone]]
    for _ in range(3):
        for a, b in zip(together, alone):
            a.grad = b.grad = torch.randn(4, 3, 2)
        for optimiser in optimisers:
            optimiser.step()
    for a, b in zip(together, alone):
        assert torch.allclose(a, b, atol=1e-6)


def test_step_has_the_length_of_the_learning_rate() -> None:
    weight = nn.Parameter(torch.zeros(64, 16))
    weight.grad = torch.randn(64, 16)
    Muon([weight], lr=0.1).step()
    # 16 directions of length near 1, times sqrt(64 / 16) for a tall matrix.
    assert weight.norm().item() == pytest.approx(0.1 * 2 * 16**0.5, rel=0.2)


def test_training_with_muon_reduces_the_loss() -> None:
    torch.manual_seed(0)
    target, x = torch.randn(8, 8) / 3, torch.randn(256, 8)
    layer = nn.Linear(8, 8, bias=False)
    optimiser = Muon(layer.parameters(), lr=0.02)

    def loss() -> torch.Tensor:
        return (layer(x) - x @ target.mT).square().mean()

    before = loss().item()
    for _ in range(150):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert loss().item() < 0.05 * before


def test_state_survives_saving() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 4))
    optimiser = Muon([weight])
    weight.grad = torch.randn(4, 4)
    optimiser.step()
    other_weight = nn.Parameter(weight.detach().clone())
    other = Muon([other_weight])
    other.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    weight.grad = other_weight.grad = torch.randn(4, 4)
    optimiser.step()
    other.step()
    assert torch.equal(weight, other_weight)
