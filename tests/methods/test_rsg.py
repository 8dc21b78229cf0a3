"""The rare-class sample generator, against formulas worked out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_bench.methods._shared.rare_features import Generator, pairs
from fer_bench.methods.rsg import Rsg

SIZES = {"centres": 3, "width": 4}


def draws(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32))


def generator(channels=5, classes=3):
    module = Generator(channels, classes, 2, 4)
    with torch.no_grad():
        module.centres.copy_(draws(classes, 2, channels, seed=9))
    return module


def gammas(module, maps, y):
    """Equation 1, image by image."""
    out = []
    for image, label in zip(maps.double().numpy(), y.tolist(), strict=True):
        z = module.choice[label].detach().double().numpy() @ image.mean((1, 2)) + module.offset[label].detach().numpy()
        out.append(np.exp(z - z.max()) / np.exp(z - z.max()).sum())
    return np.array(out)


def test_the_centres_loss_weighs_squared_distances():
    module, maps, y = generator(), draws(4, 5, 2, 3), torch.tensor([0, 2, 1, 2])
    shares, centres = gammas(module, maps, y), module.centres.detach().double().numpy()
    total = 0.0
    for i, label in enumerate(y.tolist()):
        for k in range(2):
            gap = maps[i].double().numpy() - centres[label, k][:, None, None]
            total += shares[i, k] * (gap**2).sum(0).mean()
    assert module.centre_loss(maps, y).item() == pytest.approx(total / 4, rel=1e-5)


def test_pairs_are_judged_by_whether_their_classes_agree():
    module, maps, y = generator(), draws(5, 5, 2, 3), torch.tensor([0, 2, 0, 1, 1])
    logits = module.judge(torch.cat([maps[:2], maps[2:4]], 1))  # classes 0 and 0, 2 and 1; the fifth is left out
    torch.testing.assert_close(module.pair_loss(maps, y), F.cross_entropy(logits, torch.tensor([1, 0])))


def test_rare_maps_get_the_transformed_deviations_of_frequent_ones():
    module = generator()
    head, tail = draws(3, 5, 2, 3), draws(3, 5, 2, 3, seed=1)
    head_y, tail_y = torch.tensor([0, 0, 1]), torch.tensor([2, 2, 2])
    new, loss = module.lend(head, head_y, tail, tail_y)
    centres = module.centres.detach().double().numpy()

    def deviation(maps, y):
        best, out = gammas(module, maps, y).argmax(1), maps.double().numpy().copy()
        for i, label in enumerate(y.tolist()):
            out[i] -= centres[label, best[i]][:, None, None]
        return out

    lent, own = deviation(head, head_y), deviation(tail, tail_y)
    moved = module.transform(torch.from_numpy(lent).float())
    torch.testing.assert_close(new, tail + moved, rtol=1e-4, atol=1e-5)
    told = F.cross_entropy(module.judge(torch.cat([head, moved], 1)), torch.zeros(3, dtype=torch.long)).item()
    v = moved.detach().double().numpy()
    length = {name: np.sqrt((of**2).sum(1)) for name, of in (("v", v), ("lent", lent), ("own", own))}
    cosine = (v * own).sum(1) / (length["v"] * length["own"])
    expected = told + np.abs(length["v"] - length["lent"]).mean() + np.abs(cosine - 1).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert module.centres.grad is None, "centres learn from their own loss alone"


@pytest.mark.parametrize(
    ("heads", "tails", "strength", "expected"),
    [
        (5, 2, 1.0, ([0, 1, 2, 3], [0, 1, 0, 1])),  # the rare ones twice through the frequent ones
        (5, 2, 0.5, ([0, 1], [0, 1])),
        (5, 2, 0.1, ([0, 1], [0, 1])),
        (2, 5, 1.0, ([0, 1, 0, 1], [0, 1, 2, 3])),
        (3, 3, 1.0, ([0, 1, 2], [0, 1, 2])),
        (0, 4, 1.0, ([], [])),
        (4, 0, 1.0, ([], [])),
    ],
)
def test_the_smaller_group_goes_through_the_larger(heads, tails, strength, expected):
    assert pairs(heads, tails, strength) == expected


def test_two_of_seven_classes_are_frequent(make_method):
    assert make_method(Rsg).frequent().tolist() == [3, 6]
    assert make_method(Rsg, counts=(5, 9)).frequent().tolist() == [1]
    assert make_method(Rsg, {"heads": 1.0}, counts=(5, 9, 7)).frequent().tolist() == [1, 2]


def step(make_method, tiny_trunk, batch, epoch, **params):
    method = make_method(Rsg, {**SIZES, **params}, counts=(30, 20, 5, 3), image_shape=(1, 48, 48))
    model = method.build_model(tiny_trunk)
    method.on_epoch_start(epoch, model)
    return method, model, method.training_step(model, batch)


def test_generation_starts_late(make_method, tiny_trunk, make_batch):
    batch = make_batch(size=6).with_(y=torch.tensor([0, 0, 1, 2, 3, 3]))
    _, model, loss = step(make_method, tiny_trunk, batch, epoch=0, **{"from": 0.5})
    assert set(loss.parts) == {"centres", "ce"}
    loss.total.backward()
    assert all(p.grad is not None for p in model.generator.judge.parameters())
    assert all(p.grad is None for p in model.generator.transform.parameters())
    method, model, loss = step(make_method, tiny_trunk, batch, epoch=1, **{"from": 0.5})
    assert set(loss.parts) == {"centres", "ce", "transfer"}
    loss.total.backward()
    assert all(p.grad is None for p in model.generator.judge.parameters())
    assert all(p.grad is not None for p in model.generator.transform.parameters())
    assert loss.output.logits.shape == (6, 4)
    expected = loss.parts["ce"] + 0.1 * loss.parts["centres"] + 0.01 * loss.parts["transfer"]
    torch.testing.assert_close(loss.total, expected)
    assert [g.tolist() for g in method.groups(batch.y)] == [[0, 1, 0, 1], [2, 3, 4, 5]], "class 0 is frequent"


def test_generated_maps_count_like_images_of_their_class(make_method, tiny_trunk, make_batch):
    batch = make_batch(size=4).with_(y=torch.tensor([0, 0, 2, 3]))
    method, model, loss = step(make_method, tiny_trunk, batch, epoch=0, **{"from": 0.0})
    model.eval()  # without batch statistics, the extended batch can be rebuilt
    loss = method.training_step(model, batch)
    hidden = model.hidden(batch.x)
    new, _ = model.generator.lend(hidden[:2], batch.y[:2], hidden[2:], batch.y[2:])
    logits = model.classify(torch.cat([hidden, new])).logits
    torch.testing.assert_close(loss.parts["ce"], F.cross_entropy(logits, torch.tensor([0, 0, 2, 3, 2, 3])))
    soft = method.training_step(model, batch.with_(soft=F.one_hot(batch.y, 4).float()))
    torch.testing.assert_close(soft.total, loss.total)


def test_centres_do_not_disturb_the_network(make_method, tiny_trunk, make_batch):
    batch = make_batch(size=4).with_(y=torch.tensor([0, 1, 2, 3]))
    _, model, loss = step(make_method, tiny_trunk, batch, epoch=0)
    loss.parts["centres"].backward()
    assert all(p.grad is None for p in model.trunk.parameters())


def test_it_trains(fit_small):
    run = fit_small(Rsg, {**SIZES, "from": 0.5})
    assert np.isfinite(run.logits).all()
    before, after = run.weights
    moved = {n for n, value in before.items() if not torch.equal(value, after[n])}
    assert {n for n in moved if "judge" in n} == set(), "the judge stands once maps are generated"
    assert {n for n in moved if "transform" in n} == {"generator.transform.weight", "generator.transform.bias"}
