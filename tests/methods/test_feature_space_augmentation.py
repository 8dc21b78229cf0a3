"""Fused maps of rare classes, against formulas worked out in the tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from fer_bench import Output, TrainView
from fer_bench.methods._shared.fusion import Rare, activations, fused, most_confused
from fer_bench.methods.baseline_resnet import BaselineResNet
from fer_bench.methods.feature_space_augmentation import FeatureSpaceAugmentation

SECOND = {"second.epochs": 0.5}


def head_of(weights):
    head = nn.Linear(2, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor(weights))
    return head


def test_activations_run_from_nothing_to_the_most_specific_position():
    # class 0 reads the first channel, 4, 0, -2 and 2; negative ones count as 0
    fmap = torch.tensor([[[[4.0, 0.0], [-2.0, 2.0]], [[9.0, 9.0], [9.0, 9.0]]]])
    head = head_of([[1.0, 0.0], [0.0, 1.0]])
    assert activations(fmap, torch.tensor([0]), head).tolist() == [[[[1.0, 0.0], [0.0, 0.5]]]]
    assert activations(fmap, torch.tensor([1]), head).tolist() == [[[[0.0, 0.0], [0.0, 0.0]]]], (
        "a flat map says nothing"
    )


def test_new_maps_take_each_position_from_one_of_the_two():
    draws = np.random.default_rng(0)
    mine, theirs = (torch.from_numpy(draws.normal(1, 1, (50, 2, 3, 3)).astype(np.float32)) for _ in range(2))
    y, other_y = torch.zeros(50, dtype=torch.long), torch.ones(50, dtype=torch.long)
    head = head_of([[1.0, 0.5], [-0.5, 1.0]])
    new = fused((mine, y), (theirs, other_y), head, (0.6, 0.3), torch.Generator().manual_seed(0))

    def activation(maps, weights):
        cam = np.maximum(np.einsum("d,ndhw->nhw", weights, maps.numpy()), 0)
        low, high = cam.min((1, 2), keepdims=True), cam.max((1, 2), keepdims=True)
        return ((cam - low) / (high - low))[:, None]

    first = mine.numpy() * (activation(mine, [1.0, 0.5]) > 0.6)
    second = theirs.numpy() * (activation(theirs, [-0.5, 1.0]) < 0.3)
    from_first = np.isclose(new.numpy(), first).all(1)
    from_second = np.isclose(new.numpy(), second).all(1)
    assert (from_first | from_second).all()
    shares = (from_first & ~from_second).sum((1, 2)) / np.maximum((from_first ^ from_second).sum((1, 2)), 1)
    assert shares.std() > 0.2, "the share differs from map to map"


def test_the_most_confused_classes_are_those_that_give_it_the_highest_scores():
    scores = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.4, 0.2, 0.4]])  # rows: the class of the images
    confused = most_confused(scores, 1)
    assert confused[0].tolist() == [False, False, True], "images of class 2 look most like class 0: 0.4 > 0.3"
    assert confused.sum(1).tolist() == [1, 1, 1]
    assert most_confused(scores, 9).tolist() == (~torch.eye(3, dtype=torch.bool)).tolist()


def test_rare_images_come_with_their_share(faces):
    images, labels = faces((200, 120, 50, 30))
    view = TrainView(images=images, labels=labels, num_classes=4)
    picks = labels[Rare(frequent=(0, 1), share=0.2)(view, 0, np.random.default_rng(0))]
    assert len(picks) == 400
    assert abs((picks >= 2).mean() - 0.2) < 0.06
    only = Rare(frequent=(0, 1, 2, 3), share=0.5)(view, 0, np.random.default_rng(0))
    assert len(only) == 400, "no rare image to draw"


def test_frequent_classes_are_the_largest(make_method):
    assert sorted(make_method(FeatureSpaceAugmentation).frequent()) == [2, 3, 4, 6]
    assert make_method(FeatureSpaceAugmentation, counts=(5, 9)).frequent() == (1,)


def test_donors_are_of_confused_classes_and_takers_rare(make_method):
    method = make_method(FeatureSpaceAugmentation, {"new": 2, "confusing": 1}, counts=(30, 20, 5))
    method.scores = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.4, 0.3, 0.3]])  # class 2: most confused is 1
    takers, givers = method.pairs(torch.tensor([0, 2, 1, 2]), torch.tensor([0, 1, 2, 1]))
    assert takers.tolist() == [1, 1, 3, 3]
    assert set(givers.tolist()) <= {1, 3}
    takers, givers = method.pairs(torch.tensor([0, 2, 1, 2]), torch.tensor([0, 0, 2, 2]))
    assert len(takers) == len(givers) == 0, "no donor is fit"


def test_new_maps_count_like_images_of_their_class(make_method, tiny_trunk, make_batch):
    method = make_method(FeatureSpaceAugmentation, {"new": 1, "confusing": 3}, counts=(30, 20, 5, 3))
    model = method.build_model(tiny_trunk).eval()
    method.scores, method.moment = torch.full((4, 4), 0.25), ("classifier", 0, 0)
    donors = make_batch(seed=1).with_(y=torch.tensor([0, 0, 1, 1]))
    batch = make_batch().with_(y=torch.tensor([0, 1, 2, 3]), aux={"donors": donors})
    loss = method.training_step(model, batch)
    assert loss.output.logits.shape == (4, 4)
    (fmap, own), other = model.trunk(batch.x), model.trunk(donors.x)[0]
    takers, givers = method.pairs(batch.y, donors.y)
    assert takers.tolist() == [2, 3]
    new = fused(
        (fmap[takers], batch.y[takers]),
        (other[givers], donors.y[givers]),
        model.head,
        (0.8, 0.2),
        method.generator("mask"),
    )
    logits = model.classify(torch.cat([own, model.trunk.pool(new)]))
    torch.testing.assert_close(loss.total, F.cross_entropy(logits, torch.tensor([0, 1, 2, 3, 2, 3])))
    soft = method.training_step(model, batch.with_(soft=F.one_hot(batch.y, 4).float()))
    torch.testing.assert_close(soft.total, loss.total)
    assert isinstance(loss.output, Output)


def test_the_classifier_alone_learns_after_plain_training(fit_small):
    plain, run = fit_small(BaselineResNet), fit_small(FeatureSpaceAugmentation, SECOND)
    for ours, theirs in zip(run.weights[:2], plain.weights, strict=True):
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    before, after = run.weights[1:]
    assert {n for n, value in before.items() if not torch.equal(value, after[n])} == {"head.weight", "head.bias"}
    images = (run.view.images.float() / 255 - 0.5) / 0.25
    plain.model.eval()
    with torch.no_grad():
        p = plain.model(images).logits.softmax(1)
    scores = torch.stack([p[run.view.labels == c].mean(0) for c in range(4)])
    torch.testing.assert_close(run.states[1]["scores"], scores, rtol=1e-4, atol=1e-5)
