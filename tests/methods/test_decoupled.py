"""Two-stage methods: what learns when, against plain training and against formulas worked out in the tests."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_bench import Output, ValOutputs
from fer_bench.methods.baseline_resnet import BaselineResNet
from fer_bench.methods.crt import Crt
from fer_bench.methods.disalign import Alignment, DisAlign
from fer_bench.methods.los import Los
from fer_bench.methods.lws import Lws
from fer_bench.methods.marc import Marc, Margins
from fer_bench.methods.mislas import Mislas
from fer_bench.methods.ncm import Ncm
from fer_bench.methods.tau_norm import TauNorm, normalised
from fer_bench.methods.weight_balancing import WeightBalancing

SECOND = {"second.epochs": 0.5, "second.lr": 1.0}  # two epochs of two and one more

# what learns in the second stage
LEARNS = {
    Crt: {"head.weight", "head.bias"},
    Los: {"head.weight", "head.bias"},
    Lws: {"head.adjust.scale"},
    DisAlign: {"head.adjust.scale", "head.adjust.shift", "head.adjust.direction", "head.adjust.offset"},
    Marc: {"head.adjust.scale", "head.adjust.shift"},
    Mislas: {"head.linear.weight", "head.linear.bias", "head.adjust.scale"},
    WeightBalancing: {"head.weight", "head.bias"},
}


def changed(one, other):
    return {name for name in one if not torch.equal(one[name], other[name])}


@pytest.mark.parametrize("cls", LEARNS, ids=lambda c: c.card.name)
def test_the_second_stage_changes_nothing_but_what_it_is_for(fit_small, cls):
    run = fit_small(cls, SECOND)
    assert [entry["stage"] for entry in run.history] == ["train", "train", "classifier"]
    assert changed(run.weights[1], run.weights[2]) == LEARNS[cls], "the trunk and its BatchNorm statistics stand"


@pytest.mark.parametrize("cls", [Crt, Los, Lws, DisAlign, Marc, TauNorm], ids=lambda c: c.card.name)
def test_the_first_stage_is_plain_training_bit_for_bit(fit_small, cls):
    plain, run = fit_small(BaselineResNet), fit_small(cls, SECOND if "second.epochs" in cls.card.params else {})
    for ours, theirs in zip(run.weights[:2], plain.weights, strict=True):
        trained = {name.replace("head.linear", "head"): value for name, value in ours.items() if "adjust" not in name}
        assert changed(trained, theirs) == set()


def test_the_classifier_starts_afresh(fit_small):
    run = fit_small(Crt, {**SECOND, "second.lr": 0.001})
    before, after = run.weights[1]["head.weight"], run.weights[2]["head.weight"]
    assert (after - before).abs().max() > 0.01, "a thousandth of the learning rate can't move weights this far"


def test_the_second_stage_sees_each_class_as_often(make_method, faces):
    from fer_bench import Stage, TrainView

    images, labels = faces()
    view = TrainView(images=images, labels=labels, num_classes=4)
    method = make_method(Crt, counts=(20, 12, 5, 3))
    first, second = (method.streams(Stage(name=name))["main"].sampler for name in ("train", "classifier"))
    assert sorted(first(view, 0, np.random.default_rng(0))) == list(range(40))
    assert np.bincount(labels[second(view, 0, np.random.default_rng(0))]).tolist() == [10, 10, 10, 10]


# -- tau-normalisation -----------------------------------------------------------------------------------------------


def test_weights_are_divided_by_a_power_of_their_norms():
    weights = np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])  # norms 5, 2 and 0
    np.testing.assert_array_equal(normalised(weights, 0.0), weights)
    np.testing.assert_allclose(normalised(weights, 1.0), [[0.6, 0.8], [0.0, 1.0], [0.0, 0.0]], rtol=1e-15)
    np.testing.assert_allclose(normalised(weights, 0.5), weights / np.sqrt([[5], [2], [1]]), rtol=1e-15)


def test_tau_is_the_smallest_that_finds_the_rare_class_and_drops_the_bias(make_method):
    model = torch.nn.Sequential()
    model.head = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 9.0]]))
        model.head.bias.copy_(torch.tensor([100.0, -100.0]))
    # the rare image has logits 2 and 9 x 0.5; it is found once 2 > 4.5 / 9^τ, from τ > log(2.25) / log(9) = 0.369 on
    features, labels = np.array([[2.0, 0.5], [0.1, 5.0]], np.float32), np.array([0, 1])
    method = make_method(TauNorm, counts=(10, 90))
    method.fit_posthoc(model, ValOutputs(logits=np.zeros((2, 2), np.float32), labels=labels, features=features))
    assert method.tau == 0.4
    expected = features * [1.0, 9**0.6]
    logits = method.adjust(np.zeros((2, 2), np.float32), features)
    np.testing.assert_allclose(logits, expected, rtol=1e-6)
    assert logits.dtype == np.float32
    again = make_method(TauNorm, counts=(10, 90))
    again.load_state_dict(method.state_dict())
    np.testing.assert_array_equal(again.adjust(np.zeros((1, 2)), features[:1]), logits[:1])


def test_a_given_tau_is_used(make_method):
    model = torch.nn.Sequential()
    model.head = torch.nn.Linear(3, 2)
    method = make_method(TauNorm, {"tau": 1.0}, counts=(10, 90))
    features = np.eye(3, dtype=np.float32)
    method.fit_posthoc(model, ValOutputs(logits=np.zeros((3, 2)), labels=np.array([0, 1, 1]), features=features))
    np.testing.assert_allclose(np.linalg.norm(method.adjust(np.zeros((3, 2)), features), axis=0), 1.0, rtol=1e-6)


# -- nearest class mean ----------------------------------------------------------------------------------------------


def test_scores_are_cosines_with_the_means_of_unit_features(make_method):
    method = make_method(Ncm, counts=(2, 1, 0))
    method.fit_estimator(np.array([[3.0, 0.0], [0.0, 0.5], [-7.0, 0.0]], np.float32), np.array([0, 0, 1]))
    # unit features (1, 0) and (0, 1) of class 0: mean (½, ½), whose direction is 45°; class 2 has no image
    scores = method.predict_estimator(np.array([[10.0, 0.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(scores, [[np.sqrt(0.5), -1.0, -100.0], [0.0, 0.0, -100.0]], atol=1e-12)


def test_distances_and_centring_follow_their_formulas(make_method):
    features = np.random.default_rng(0).normal(3.0, 1.0, (6, 4)).astype(np.float32)
    labels, new = np.array([0, 0, 0, 1, 1, 1]), np.full((1, 4), 2.0, np.float32)
    method = make_method(Ncm, {"features": "centred", "distance": "euclidean"}, counts=(3, 3))
    method.fit_estimator(features, labels)
    centre = features.astype(np.float64).mean(0)
    rows = [(f - centre) / np.linalg.norm(f - centre) for f in features]
    mine = (new[0] - centre) / np.linalg.norm(new[0] - centre)
    expected = [-np.sum((mine - np.mean(rows[k : k + 3], 0)) ** 2) for k in (0, 3)]
    np.testing.assert_allclose(method.predict_estimator(new)[0], expected, rtol=1e-12)
    raw = make_method(Ncm, {"features": "raw", "distance": "euclidean"}, counts=(3, 3))
    raw.fit_estimator(features, labels)
    expected = [-np.sum((new[0] - features[k : k + 3].astype(np.float64).mean(0)) ** 2) for k in (0, 3)]
    np.testing.assert_allclose(raw.predict_estimator(new)[0], expected, rtol=1e-12)


def test_class_means_are_those_of_the_trained_features(fit_small):
    run = fit_small(Ncm)
    assert run.logits.shape == (16, 4)
    assert np.abs(run.logits).max() <= 1 + 1e-6
    again = Ncm({**run.method.params})
    again.ctx = run.method.ctx
    again.load_state_dict(run.states[-1])
    np.testing.assert_array_equal(again.predict_estimator(run.features).astype(np.float32), run.logits)


# -- formulas of the second stages -----------------------------------------------------------------------------------


def draws(*shape):
    return torch.from_numpy(np.random.default_rng(len(shape)).normal(0, 2, shape))


def test_alignment_mixes_aligned_and_plain_logits_by_confidence():
    module, x, z = Alignment(5, 3).double(), draws(4, 5), draws(4, 3)
    assert torch.equal(module(x, z, z), z), "at first it changes nothing"
    alpha, beta, v, u = draws(3), draws(3), draws(5), draws(1)
    with torch.no_grad():
        module.scale.copy_(alpha), module.shift.copy_(beta), module.direction.copy_(v), module.offset.copy_(u)
    sigma = 1 / (1 + np.exp(-(x.numpy() @ v.numpy() + u.numpy())))[:, None]
    expected = sigma * (alpha.numpy() * z.numpy() + beta.numpy()) + (1 - sigma) * z.numpy()
    np.testing.assert_allclose(module(x, z, z).detach().numpy(), expected, rtol=1e-12)


def test_margins_are_scaled_and_shifted_in_units_of_the_norms():
    module, z, w = Margins(3).double(), draws(4, 3), draws(3, 5)
    assert torch.equal(module(z, z, w), z)
    with torch.no_grad():
        module.scale.copy_(torch.tensor([2.0, 1.0, 0.5])), module.shift.copy_(torch.tensor([0.0, 3.0, -1.0]))
    expected = z.numpy() * [2, 1, 0.5] + np.array([0, 3, -1]) * np.sqrt((w.numpy() ** 2).sum(1))
    np.testing.assert_allclose(module(z, z, w).detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("cls", [DisAlign, Marc], ids=lambda c: c.card.name)
def test_the_calibration_learns_by_generalised_weights(make_method, make_batch, cls):
    method, batch = make_method(cls, {"rho": 1.2}), make_batch(size=6)
    output = Output(logits=torch.randn(6, 7))
    assert torch.equal(method.batch_loss(output, batch), F.cross_entropy(output.logits, batch.y)), "none at first"
    method.moment = ("classifier", 0, 0)
    n = np.array([3995, 436, 4097, 7215, 4830, 3171, 4965], dtype=np.float64)
    weights = torch.from_numpy((n / n.sum()) ** -1.2 / ((n / n.sum()) ** -1.2).sum() * 7)
    expected = F.cross_entropy(output.logits.double(), batch.y, weight=weights)
    assert method.batch_loss(output, batch).item() == pytest.approx(expected.item(), rel=1e-6)


def test_label_aware_smoothing_counts_in_the_second_stage_only(make_method):
    method, logits, y = make_method(Mislas, {"smooth.head": 0.1}), torch.randn(2, 7), torch.tensor([3, 1])
    assert torch.equal(method.criterion(Output(logits=logits), y), F.cross_entropy(logits, y, reduction="none"))
    method.moment = ("classifier", 0, 0)
    losses = method.criterion(Output(logits=logits), y)
    for loss, z, label, share in zip(losses, logits, y, (0.1, 0.0), strict=True):  # the largest and the smallest class
        expected = F.cross_entropy(z[None].double(), label[None], label_smoothing=share)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_over_smoothing_keeps_the_odds_of_the_paper(make_method):
    def odds(delta, classes):
        return (1 - delta + delta / classes) / (delta / classes)

    assert odds(make_method(Los).delta, 7) == pytest.approx(odds(0.98, 100))
    assert make_method(Los).delta == pytest.approx(0.774, abs=5e-4), "as the card says"
    assert make_method(Los, counts=(5,) * 100).delta == pytest.approx(0.98)
    assert make_method(Los, {"delta": 0.5}).delta == 0.5


def test_over_smoothing_counts_in_the_second_stage_only(make_method):
    method, logits, y = make_method(Los, {"delta": 0.9}), torch.randn(5, 7), torch.tensor([0, 1, 2, 3, 6])
    assert torch.equal(method.criterion(Output(logits=logits), y), F.cross_entropy(logits, y))
    method.moment = ("classifier", 0, 0)
    log_p = F.log_softmax(logits.double(), 1)
    expected = -(0.1 * log_p[range(5), y] + 0.9 * log_p.mean(1)).mean().float()
    torch.testing.assert_close(method.criterion(Output(logits=logits), y), expected)
    torch.testing.assert_close(method.criterion(Output(logits=logits), F.one_hot(y, 7).float()), expected)


# -- MiSLAS ----------------------------------------------------------------------------------------------------------


def test_mixup_comes_first_and_the_trunk_gets_no_gradient_afterwards(make_method, make_batch, tiny_trunk):
    from fer_bench import Stage

    method = make_method(Mislas)
    model, batch = method.build_model(tiny_trunk), make_batch()
    method.on_stage_start(Stage(name="train"), model, None)
    assert method.on_batch(batch).soft.shape == (4, 7)
    method.on_stage_start(Stage(name="classifier"), model, None)
    method.moment = ("classifier", 0, 0)
    assert method.on_batch(batch) is batch
    method.training_step(model, batch).total.backward()
    assert all(p.grad is None for p in model.trunk.parameters())
    assert all(p.grad is not None for p in model.head.parameters())


def test_batchnorm_statistics_shift_if_asked_to(fit_small):
    run = fit_small(Mislas, {**SECOND, "shift_bn": True})
    moved = changed(run.weights[1], run.weights[2])
    assert {n for n in moved if n.startswith("trunk")} == {n for n in run.weights[0] if "running" in n or "num_b" in n}


# -- weight balancing ------------------------------------------------------------------------------------------------


def test_weights_beyond_the_bound_come_back_to_it(make_method, tiny_trunk):
    from fer_bench import Stage

    method = make_method(WeightBalancing, {"maxnorm": 0.25}, counts=(5, 3))
    model = method.build_model(tiny_trunk)
    with torch.no_grad():
        model.head.weight.copy_(F.normalize(torch.randn(2, 128), dim=1) * torch.tensor([[2.0], [6.0]]))
    before = copy.deepcopy(model.head.weight.data)
    method.bring_back(model)
    assert torch.equal(model.head.weight.data, before), "no bound before the second stage"
    method.on_stage_start(Stage(name="classifier"), model, None)
    assert method.bound == pytest.approx(3.0), "a quarter of the way from 2 to 6"
    method.bring_back(model)
    torch.testing.assert_close(model.head.weight.data, before * torch.tensor([[1.0], [0.5]]))


@pytest.mark.parametrize("project", ["epoch", "step"])
def test_norms_stay_within_the_bound_of_the_first_stage(fit_small, project):
    run = fit_small(WeightBalancing, {**SECOND, "maxnorm": 0.0, "second.decay": 0.0, "project": project})
    smallest = run.weights[1]["head.weight"].norm(dim=1).min()
    assert run.method.bound == pytest.approx(smallest.item())
    assert (run.weights[2]["head.weight"].norm(dim=1) <= smallest * (1 + 1e-6)).all()


def test_each_stage_has_its_decay(make_method, tiny_trunk):
    from fer_bench import Stage

    method = make_method(WeightBalancing)
    method.ctx = replace(method.ctx, recipe={"weight_decay": 5e-4})
    model = method.build_model(tiny_trunk)
    decays = {g["weight_decay"]: {p.ndim > 1 for p in g["params"]} for g in method.param_groups(model, Stage())}
    assert decays == {5e-3: {True}, 0.0: {False}}
    model.trunk.requires_grad_(False)
    (group,) = method.param_groups(model, Stage(name="classifier"))
    assert (len(group["params"]), group["weight_decay"]) == (2, pytest.approx(0.1))
