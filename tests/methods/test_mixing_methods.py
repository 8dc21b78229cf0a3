"""Methods that mix: what reaches the network, with which targets, and whether a step trains."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from fer_bench.contract.batch import Batch, Output
from fer_bench.contract.method import Stage
from fer_bench.methods._shared.mixing import mixed
from fer_bench.methods._shared.samplers import Power
from fer_bench.methods.balanced_mixup import BalancedMixup
from fer_bench.methods.cmo import CMO
from fer_bench.methods.cutmix import CutMix
from fer_bench.methods.label_occurrence_balanced_mixup import LabelOccurrenceBalancedMixup
from fer_bench.methods.mamix import MAMix
from fer_bench.methods.manifold_mixup import ManifoldMixup
from fer_bench.methods.mixup import Mixup
from fer_bench.methods.remix import Remix
from fer_bench.methods.unimix import UniMix, unimix_share

from .conftest import FER2013

ONE_STREAM = [Mixup, CutMix, Remix, MAMix, UniMix]
TWO_STREAMS = [(BalancedMixup, "balanced"), (LabelOccurrenceBalancedMixup, "partner"), (CMO, "patches")]


def batch_of(y, seed=0, side=24, value=None, views=1, **changes):
    g = torch.Generator().manual_seed(seed)
    images = (
        torch.randn(len(y), 1, side, side, generator=g) if value is None else torch.full((len(y), 1, side, side), value)
    )
    views = [images.clone() for _ in range(views)]
    return Batch(views=views, y=torch.tensor(y), index=torch.arange(len(y)), generator=g, **changes)


@pytest.mark.parametrize(("cls", "kind"), [(Mixup, "mixup"), (CutMix, "cutmix"), (Remix, "remix"), (MAMix, "mamix")])
def test_the_method_does_what_the_parameter_mix_does(cls, kind, make_method):
    method = make_method(cls, {"alpha": 1.0})
    for seed in range(4):
        one = method.on_batch(batch_of([0, 1, 3, 1], seed))
        other = mixed(kind, batch_of([0, 1, 3, 1], seed), FER2013, 1.0)
        assert torch.equal(one.x, other.x)
        assert (one.soft is None and other.soft is None) or torch.equal(one.soft, other.soft)


def test_remix_and_mamix_follow_their_parameters(make_method):
    plain = make_method(Mixup, {"alpha": 1.0})
    for seed in range(6):
        batch = batch_of([0, 1, 3, 1], seed)
        expected = plain.on_batch(batch_of([0, 1, 3, 1], seed)).soft
        unmoved = make_method(Remix, {"tau": 0.0}).on_batch(batch)
        assert unmoved.soft.numpy() == pytest.approx(expected.numpy(), abs=1e-6)
        again = make_method(MAMix, {"omega": 0.0}).on_batch(batch_of([0, 1, 3, 1], seed))
        assert again.soft.numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def test_cutmix_with_p_one_always_pastes_and_with_zero_never(make_method):
    for seed in range(5):
        assert make_method(CutMix, {"p": 1.0}).on_batch(batch_of([0, 1], seed)).soft is not None
        untouched = batch_of([0, 1], seed)
        assert make_method(CutMix, {"p": 0.0}).on_batch(untouched).x is untouched.x


@pytest.mark.parametrize(("cls", "stream"), TWO_STREAMS)
def test_two_streams_are_mixed_pixel_by_pixel_and_label_by_label(cls, stream, make_method):
    method = make_method(cls, {} if cls is not CMO else {"p": 1.0})
    for seed in range(5):
        aux = batch_of([1, 1], value=1.0, views=2)
        batch = batch_of([0, 2, 3], seed, value=0.0, views=2, aux={stream: aux})
        out = method.on_batch(batch)
        share = out.x.mean(dim=(1, 2, 3))  # zeros mixed with ones: the share of the other stream
        assert torch.equal(out.views[0], out.views[1])
        assert out.soft[:, 1].tolist() == pytest.approx(share.tolist(), abs=1e-5)
        assert out.soft[range(3), [0, 2, 3]].tolist() == pytest.approx((1 - share).tolist(), abs=1e-5)
        assert out.aux == {}
        assert out.y.tolist() == [0, 2, 3]


def test_balanced_mixup_leans_on_the_natural_stream(make_method):
    method = make_method(BalancedMixup, {"alpha": 0.2})
    shares = []
    for seed in range(300):
        aux = {"balanced": batch_of([1], value=1.0, side=2)}
        shares.append(float(method.on_batch(batch_of([0], seed, side=2, value=0.0, aux=aux)).soft[0, 1]))
    assert stats.kstest(shares, stats.beta(0.2, 1.0).cdf).pvalue > 0.001


def test_label_occurrence_is_balanced_in_expectation(make_method):
    specs = make_method(LabelOccurrenceBalancedMixup).streams(Stage())
    assert [spec.sampler for spec in specs.values()] == [Power(q=0.0), Power(q=0.0)]


def test_cmo_rests_in_the_first_and_last_epochs(make_method):
    method = make_method(CMO)
    method.ctx = dataclasses.replace(method.ctx, epochs=200)
    on = [epoch for epoch in range(200) if method.on(epoch)]
    assert (on[0], on[-1], len(on)) == (3, 196, 194)
    method.ctx = dataclasses.replace(method.ctx, epochs=1)
    assert method.on(0)
    resting = make_method(CMO, {"p": 1.0, "off.first": 1.0})
    batch = batch_of([0], aux={"patches": batch_of([1])})
    assert resting.on_batch(batch).soft is None


def test_cmo_pastes_into_the_share_of_batches_that_p_says(make_method):
    method = make_method(CMO, {"p": 0.3})
    mixes = 0
    for seed in range(300):
        mixes += method.on_batch(batch_of([0], seed, side=2, aux={"patches": batch_of([1], side=2)})).soft is not None
    assert stats.binomtest(mixes, 300, 0.3).pvalue > 0.001


# -- UniMix ----------------------------------------------------------------------------------------------------------


def test_unimix_shares_by_hand():
    own, other = torch.tensor([900.0, 100.0, 100.0]), torch.tensor([100.0, 900.0, 100.0])
    drawn = torch.tensor([0.5, 0.5, 0.2])
    assert unimix_share(drawn, own, other).tolist() == pytest.approx([0.6, 0.4, 0.7])


def test_unimix_prefers_rare_partners(make_method):
    method = make_method(UniMix, {"tau": -1.0})
    y = [3] * 30 + [1] * 10
    met = torch.zeros(7)
    for seed in range(60):
        out = method.on_batch(batch_of(y, seed, side=2))
        met[1] += (out.soft[:30, 1] > 0).sum()  # a frequent image with a rare partner
        met[3] += (out.soft[:30, 3] == 1).sum()  # or with a frequent one
    rare = 10 / 436 / (10 / 436 + 30 / 7215)
    assert met.sum() == 1800
    assert stats.binomtest(int(met[1]), 1800, rare).pvalue > 0.001


def test_bayias_is_cross_entropy_of_the_logits_plus_the_log_prior(make_method):
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)) * 3
    y = torch.tensor([0, 1, 6])
    shifted = logits.double().numpy() + np.log(FER2013 / FER2013.sum())
    expected = np.log(np.exp(shifted).sum(1)) - shifted[range(3), y]
    assert make_method(UniMix).criterion(Output(logits=logits), y).tolist() == pytest.approx(
        expected.tolist(), rel=1e-5
    )
    plain = make_method(UniMix, {"bayias": False}).criterion(Output(logits=logits), y)
    assert plain.tolist() == pytest.approx(torch.nn.functional.cross_entropy(logits, y, reduction="none").tolist())


def test_a_class_without_images_leaves_smoothed_losses_finite(make_method):
    method = make_method(UniMix, counts=(30, 0, 10))
    target = torch.full((2, 3), 1 / 3)
    assert torch.isfinite(method.criterion(Output(logits=torch.tensor([[1e4, -1e4, 0.0]] * 2)), target)).all()


# -- hidden states ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["1", "2", "3", "pooled"])
def test_a_hidden_state_is_mixed_with_the_partners(layer, make_method, tiny_trunk):
    method = make_method(ManifoldMixup, {"layer": layer})
    model = method.build_model(tiny_trunk).eval()
    x = batch_of([0, 1, 2], side=48).x
    order, share = torch.tensor([2, 0, 1]), 0.3
    with torch.no_grad():
        plain, same = model(x), model(x, torch.arange(3), share)
        out = model(x, order, share).logits
        assert same.logits.numpy() == pytest.approx(plain.logits.numpy(), abs=1e-5)
        assert method.predict(model, x[:1]).logits.numpy() == pytest.approx(plain.logits[:1].numpy(), abs=1e-5)
        if layer == "pooled":  # everything behind it is linear
            assert out.numpy() == pytest.approx((share * plain.logits + 0.7 * plain.logits[order]).numpy(), abs=1e-5)
        else:
            hidden = model.parts.shared.body.forward_features(x)
            features = model.parts.trunks[0](share * hidden + 0.7 * hidden[order])[1]
            assert out.numpy() == pytest.approx(model.head(features).numpy(), abs=1e-5)


def test_hidden_states_and_pixels_are_mixed_with_the_same_targets(make_method, tiny_trunk):
    for pixels in (0.0, 1.0):
        method = make_method(ManifoldMixup, {"pixels": pixels, "layer": "pooled"})
        method.moment = ("train", 0, 3)
        model = method.build_model(tiny_trunk).eval()
        batch = batch_of([0, 1, 2], side=48)
        g = method.generator("mix")
        share = float(np.random.default_rng(int(torch.randint(2**31, (), generator=g))).beta(2.0, 2.0))
        order = torch.randperm(3, generator=g)
        with torch.no_grad():
            z = (
                model(share * batch.x + (1 - share) * batch.x[order]).logits
                if pixels
                else model(batch.x, order, share).logits
            )
            log_p = torch.log_softmax(z, 1)
            losses = -share * log_p[range(3), batch.y] - (1 - share) * log_p[range(3), batch.y[order]]
            assert method.training_step(model, batch).total.item() == pytest.approx(losses.mean().item(), rel=1e-5)


# -- a step of each --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("cls", [*ONE_STREAM, ManifoldMixup, *(cls for cls, _ in TWO_STREAMS)])
def test_a_step_gives_finite_gradients_to_all_weights(cls, smoothing, make_method, tiny_trunk):
    method = make_method(cls, {"weights": "effective"})
    method.moment = ("train", 0, 0)
    model = method.build_model(tiny_trunk)
    streams = {name: batch_of([1, 1, 0, 5], 3) for name in method.streams(Stage()) if name != "main"}
    batch = method.on_batch(batch_of([0, 1, 3, 6], aux=streams))
    batch = batch.with_(soft=batch.soft_target(7), smoothing=smoothing)
    loss = method.training_step(model, batch)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    grads = [p.grad for p in model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)
