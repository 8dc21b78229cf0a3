"""Triplets found in a batch, by hand and against loops."""

import itertools

import pytest
import torch

from fer_bench.methods.triplet import Triplet, hard_triplets, semi_hard_triplets, squared_distances

# four images; 0 and 1 are of class 0, 2 of class 1, 3 of class 2
Y = torch.tensor([0, 0, 1, 2])
D = torch.tensor([[0.0, 1.0, 0.8, 1.3], [1.0, 0.0, 0.9, 0.5], [0.8, 0.9, 0.0, 2.0], [1.3, 0.5, 2.0, 0.0]])


def test_distances_of_unit_features():
    f = torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    torch.testing.assert_close(squared_distances(f), torch.tensor([[0.0, 2, 4], [2, 0, 2], [4, 2, 0]]))


def test_hard_triplets_by_hand():
    # anchor 0: positive 1.0, nearest negative 0.8; anchor 1: 1.0 and 0.5; 2 and 3 have no positive
    assert hard_triplets(D, Y, 0.2).item() == pytest.approx((0.4 + 0.7) / 2)


def test_semi_hard_triplets_by_hand():
    # anchor 0: beyond 1.0 lies 1.3, so 1.0 - 1.3 + 0.4; anchor 1: none lies beyond, so the farthest, 0.9
    assert semi_hard_triplets(D, Y, 0.4).item() == pytest.approx((0.1 + 0.5) / 2)


def by_loops(distances, y, margin):
    losses = []
    for a, p in itertools.permutations(range(len(y)), 2):
        negatives = [distances[a, n].item() for n in range(len(y)) if y[n] != y[a]]
        if y[a] != y[p] or not negatives:
            continue
        d = distances[a, p].item()
        beyond = [n for n in negatives if n > d]
        losses.append(max(0.0, d - (min(beyond) if beyond else max(negatives)) + margin))
    return sum(losses) / len(losses)


def test_semi_hard_triplets_of_random_batches():
    y = torch.randint(0, 4, (24,))
    distances = squared_distances(torch.randn(24, 5))
    assert semi_hard_triplets(distances, y, 0.2).item() == pytest.approx(by_loops(distances, y, 0.2), rel=1e-5)


@pytest.mark.parametrize("mine", [hard_triplets, semi_hard_triplets])
@pytest.mark.parametrize("y", [[0, 0, 0], [0, 1, 2], [1]])
def test_without_a_triplet_there_is_no_loss(mine, y):
    f = torch.randn(len(y), 4, requires_grad=True)
    loss = mine(squared_distances(f), torch.tensor(y), 0.2)
    loss.backward()
    assert loss.item() == 0.0
    assert f.grad.abs().sum() == 0.0


@pytest.mark.parametrize("mining", ["hard", "semi_hard"])
def test_a_step_adds_the_triplets(make_method, tiny_trunk, make_batch, mining):
    method, batch = make_method(Triplet, {"mining": mining, "weight": 2.0}), make_batch(size=12)
    model = method.build_model(tiny_trunk).train()
    loss = method.training_step(model, batch)
    torch.testing.assert_close(loss.total, loss.parts["ce"] + 2 * loss.parts["triplet"])
    assert loss.parts["triplet"] > 0
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
