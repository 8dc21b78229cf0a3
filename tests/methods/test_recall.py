"""What RASN's own forms recall: class prototypes, learned atoms, and the controls that share nothing."""

import math

import numpy as np
import pytest
import torch

from fer_bench.contract.backbones import build_trunk
from fer_bench.errors import SpecError
from fer_bench.methods._rasn.affinity import Sharing
from fer_bench.methods._rasn.sharing_net import early_map
from fer_bench.methods._rasn.sources import Dictionary, Own, Prototypes, make_source
from fer_bench.methods.rasn import RASN

MAP = (5, 2, 3)
PROTOTYPES = {"share.source": "class_prototypes", "share.fusion": "attend"}
DICTIONARY = {"share.source": "dictionary", "share.fusion": "attend"}
NO_ATTENTION = {"attn.type": "none"}


def prototypes(shape=MAP, classes=3, momentum=0.9, evaluate="frozen_ema"):
    return Prototypes(shape, classes, momentum=momentum, evaluate=evaluate)


def by_hand(x, entries):
    """Σ_s softmax(x·E_s/√d) E_s with loops: x [B, d, H, W] and entries [S, d, H, W], float64."""
    out = np.zeros_like(x)
    for b, _, h, w in np.ndindex(x.shape):
        scores = np.array([x[b, :, h, w] @ e[:, h, w] for e in entries]) / math.sqrt(x.shape[1])
        share = np.exp(scores - scores.max())
        share /= share.sum()
        out[b, :, h, w] = sum(s * e[:, h, w] for s, e in zip(share, entries, strict=True))
    return out


def test_recall_is_attention_over_the_prototypes_at_every_position():
    source = prototypes().eval()
    source.running.normal_()
    source.seen.fill_(True)
    x = torch.randn(4, *MAP)
    expected = by_hand(x.double().numpy(), source.running.double().numpy())
    np.testing.assert_allclose(source(x).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_atoms_are_the_same_at_every_position():
    source, x = Dictionary(MAP, atoms=4), torch.randn(2, *MAP)
    atoms = source.atoms.detach().double().numpy()[:, :, None, None] * np.ones((1, 1, *MAP[1:]))
    expected = by_hand(x.double().numpy(), atoms)
    np.testing.assert_allclose(source(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_map_of_one_channel_is_read_as_one_vector():
    source = prototypes(shape=(1, 2, 3), classes=2).eval()
    source.running.normal_()
    source.seen.fill_(True)
    x = torch.randn(3, 1, 2, 3)
    expected = by_hand(x.double().numpy().reshape(3, 6, 1, 1), source.running.double().numpy())
    np.testing.assert_allclose(source(x).numpy().reshape(3, 6, 1, 1), expected, rtol=1e-5, atol=1e-6)


def test_prototypes_are_running_means_of_each_class_and_an_absent_class_keeps_its_own():
    source = prototypes(shape=(1, 1, 1), momentum=0.75)
    source(torch.tensor([2.0, 4.0, 10.0]).reshape(3, 1, 1, 1), torch.tensor([0, 0, 1]))
    assert source.running.flatten().tolist() == [3.0, 10.0, 0.0]
    assert source.seen.tolist() == [True, True, False]
    source(torch.tensor([7.0, 1.0]).reshape(2, 1, 1, 1), torch.tensor([0, 2]))
    assert source.running.flatten().tolist() == [0.75 * 3 + 0.25 * 7, 10.0, 1.0]


def test_each_class_weighs_alike_however_frequent_it_is():
    few, many = prototypes(), prototypes()
    x = torch.randn(2, *MAP)
    few(x, torch.tensor([0, 1]))
    many(torch.cat([x[:1].expand(50, *MAP), x[1:]]), torch.tensor([0] * 50 + [1]))
    torch.testing.assert_close(few.running, many.running)


def test_the_present_batch_has_not_entered_what_it_reads():
    source, x = prototypes(), torch.randn(6, *MAP)
    first = source(x, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert torch.equal(first, torch.zeros_like(x)), "before the first batch there is nothing to recall"
    state = {name: value.clone() for name, value in source.state_dict().items()}
    outputs = []
    for labels in ([0, 1, 2, 0, 1, 2], [2, 2, 2, 1, 1, 0]):
        source.load_state_dict(state)
        outputs.append(source(x, torch.tensor(labels)))
    assert torch.equal(*outputs), "no label may reach the logits of its own image"


def test_a_class_that_was_never_seen_is_not_drawn_on():
    source = prototypes(classes=4)
    source(torch.randn(4, *MAP), torch.tensor([0, 0, 2, 2]))
    shares = source.eval().shares(torch.randn(3, *MAP))
    assert shares[:, [1, 3]].abs().max() == 0
    torch.testing.assert_close(shares.sum(1), torch.ones(3))


def test_prototypes_pass_no_gradient_but_the_query_does():
    source, x = prototypes(), torch.randn(4, *MAP, requires_grad=True)
    y = torch.tensor([0, 1, 2, 0])
    source(torch.randn(4, *MAP), y)
    before = source.running.clone()
    source(x, y).square().sum().backward()
    assert x.grad.abs().max() > 0
    assert not source.running.requires_grad
    assert not torch.equal(before, source.running)


def test_gradients_of_recall_agree_with_finite_differences():
    source = prototypes(shape=(3, 1, 2)).double().eval()
    source.running.normal_()
    source.seen.fill_(True)
    x = torch.randn(2, 3, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(source, (x,))


def test_evaluation_leaves_prototypes_alone_and_needs_no_label():
    source = prototypes()
    source(torch.randn(4, *MAP), torch.tensor([0, 1, 2, 0]))
    before = source.running.clone()
    source.eval()(torch.randn(4, *MAP))
    assert torch.equal(before, source.running)
    with pytest.raises(SpecError, match="class_prototypes needs the labels"):
        source.train()(torch.randn(4, *MAP))


def test_the_learned_gate_follows_its_formula_and_starts_half_open():
    source = prototypes()
    module = Sharing(source, 5, fusion="attend", alpha=0.5, detach=False).eval()
    source.running.normal_()
    source.seen.fill_(True)
    x = torch.randn(3, *MAP)
    torch.testing.assert_close(module(x), x + 0.5 * 0.5 * source(x))
    with torch.no_grad():
        module.openness.weight.normal_()
        module.openness.bias.fill_(0.3)
    w = module.openness.weight.detach()[0, :, 0, 0]
    g = 1 / (1 + torch.exp(-(torch.einsum("bdhw,d->bhw", x, w) / math.sqrt(5) + 0.3)))
    torch.testing.assert_close(module(x), x + 0.5 * g[:, None] * source(x))


def test_detached_recall_leaves_features_the_gradient_of_the_plain_network():
    source = prototypes()
    source.running.normal_()
    source.seen.fill_(True)
    module = Sharing(source, 5, fusion="attend", alpha="learnable", detach=True).eval()
    x = torch.randn(3, *MAP, requires_grad=True)
    upstream = torch.randn(3, *MAP)
    (module(x) * upstream).sum().backward()
    torch.testing.assert_close(x.grad, upstream)
    assert module.openness.bias.grad.abs() > 0
    assert module.alpha.grad.abs() > 0


def test_controls_give_each_image_nothing_but_its_own_features():
    x = torch.randn(3, *MAP)
    assert torch.equal(Own(MAP)(x), x)
    projection = Own(MAP, atoms=4)
    w = projection.weight.detach()
    torch.testing.assert_close(projection(x).detach(), torch.einsum("md,mk,bkhw->bdhw", w, w, x))


@pytest.mark.parametrize(
    ("form", "control"),
    [
        (PROTOTYPES, {"share.source": "own", "share.fusion": "attend"}),
        (DICTIONARY, {"share.source": "own_projection", "share.fusion": "attend"}),
        ({}, {"share.source": "own"}),
    ],
    ids=["prototypes", "dictionary", "mean"],
)
def test_each_control_has_as_many_parameters_as_what_it_controls_for(make_method, tiny_trunk, form, control):
    sizes = [
        sum(p.numel() for p in make_method(RASN, params).build_model(tiny_trunk).parameters())
        for params in (form, control)
    ]
    assert sizes[0] == sizes[1]


def shift_of_sharing(make_method, tiny_trunk, make_batch, params):
    """What sharing adds to the logits of 8 unlike images [8, 7], after three steps and with a gate that reads them."""
    method = make_method(RASN, params | NO_ATTENTION)
    model = method.build_model(tiny_trunk).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for seed in range(3):
        optimiser.zero_grad()
        method.training_step(model, make_batch(8, seed=seed)).total.backward()
        optimiser.step()
    method.before_eval(model, lambda: [make_batch(8, seed=seed) for seed in range(3)])
    model.eval()
    x = make_batch(8, seed=9).x * torch.linspace(0.2, 3, 8)[:, None, None, None]
    with torch.no_grad():
        if model.sharing.openness is not None:
            model.sharing.openness.weight.normal_()
        shared = method.predict(model, x).logits
        model.sharing.alpha.zero_()
        return shared - method.predict(model, x).logits


@pytest.mark.parametrize(
    "params", [{}, {"share.level": "pooled"}, {"share.source": "ema"}, {"share.fusion": "concat"}], ids=str
)
def test_a_stored_mean_moves_all_images_alike(make_method, tiny_trunk, make_batch, params):
    shift = shift_of_sharing(make_method, tiny_trunk, make_batch, params)
    assert shift.abs().max() > 1e-3
    assert (shift - shift[:1]).abs().max() < 1e-5


@pytest.mark.parametrize(
    "params",
    [
        PROTOTYPES,
        PROTOTYPES | {"share.level": "pooled"},
        PROTOTYPES | {"share.level": "layer3"},
        PROTOTYPES | {"share.level": "arm", "head": "arm_dealbino"},
        PROTOTYPES | {"share.fusion": "add_alpha"},
        PROTOTYPES | {"eval.affinity": "train_set_mean"},
        DICTIONARY,
        {"share.level": "layer3"},
        {"share.fusion": "attend"},
    ],
    ids=str,
)
def test_the_forms_that_act_move_logits_image_by_image(make_method, tiny_trunk, make_batch, params):
    shift = shift_of_sharing(make_method, tiny_trunk, make_batch, params)
    assert (shift - shift[:1]).abs().max() > 1e-4


def test_train_set_mean_stores_the_mean_of_each_class(make_method, tiny_trunk, make_batch):
    method = make_method(RASN, PROTOTYPES | {"eval.affinity": "train_set_mean"})
    model = method.build_model(tiny_trunk).eval()
    batches = [make_batch(4, seed=1), make_batch(3, seed=2)]
    method.before_eval(model, lambda: batches)
    with torch.no_grad():
        maps = torch.cat([model.shareable(b.x)[1] for b in batches])
    y = torch.cat([b.y for b in batches])
    means, seen = model.sharing.source.entries()
    assert set(y.tolist()) == set(seen.nonzero().flatten().tolist())
    for c in y.unique():
        torch.testing.assert_close(means[c], maps[y == c].mean(0))


def test_sharing_at_layer3_stands_between_the_third_and_the_last_stage(make_method, tiny_trunk, make_batch):
    method = make_method(RASN, {"share.level": "layer3", "share.alpha": 0.5} | NO_ATTENTION)
    model = method.build_model(tiny_trunk).train()
    x, body = make_batch().x, model.trunk.body
    early = early_map(model.trunk, x)
    torch.testing.assert_close(body.layer4(early), body.forward_features(x))
    features = body.layer4(early + 0.5 * early.mean(0)).mean((2, 3))
    torch.testing.assert_close(model(x).features, features)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (PROTOTYPES | {"eval.affinity": "test_batch"}, "shares no mean"),
        ({"share.source": "own", "eval.affinity": "train_set_mean"}, "stores none"),
        (DICTIONARY | {"eval.affinity": "train_set_mean"}, "stores none"),
        ({"share.source": "none", "attn.place": "on_affinity"}, "no affinity to attend to"),
        ({"share.level": "layer3"}, "needs the stages of a ResNet, not MobileNetV3"),
    ],
    ids=str,
)
def test_switches_without_sense_are_refused_with_the_reason(make_method, params, says):
    name = "mobilenetv3_small_050" if "MobileNet" in says else "resnet10_tiny"
    with pytest.raises(SpecError, match=says):
        make_method(RASN, params).build_model(lambda: build_trunk(name, in_chans=1, image_size=48))


def test_the_adjusted_loss_is_cross_entropy_of_shifted_logits(make_method, tiny_trunk, make_batch):
    method, batch = make_method(RASN, {"loss.tau": 2.0}), make_batch()
    counts = method.ctx.counts
    loss = method.training_step(method.build_model(tiny_trunk).train(), batch)
    z = loss.output.logits.detach().double().numpy() + 2 * np.log(counts / counts.sum())
    expected = np.mean([np.log(np.exp(row).sum()) - row[c] for row, c in zip(z, batch.y.tolist(), strict=True)])
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("params", "maps", "sources"),
    [
        (PROTOTYPES, ["attention", "attention on the affinity"], [f"class{c}" for c in range(7)]),
        (DICTIONARY | NO_ATTENTION | {"share.atoms": 3}, [], ["atom 1", "atom 2", "atom 3"]),
        ({"attn.type": "se"}, [], []),
        ({"attn.place": "every_block", "attn.type": "spatial"}, ["attention"], []),
    ],
    ids=str,
)
def test_insight_tells_where_it_looks_and_what_a_face_recalls(
    make_method, tiny_trunk, make_batch, params, maps, sources
):
    method, batch = make_method(RASN, params), make_batch(8)
    model = method.build_model(tiny_trunk).train()
    method.training_step(model, batch)
    model.eval()
    with torch.no_grad():
        told = method.insight(model, batch.x)
    assert list(told.maps) == maps
    assert all(m.shape == (8, 3, 3) and (m > 0).all() for m in told.maps.values())
    assert list(told.sources) == sources
    if sources:
        assert told.shares.shape == (8, len(sources))
        torch.testing.assert_close(told.shares.sum(1), torch.ones(8))


def test_a_source_is_made_for_every_name_that_the_card_offers():
    kinds = [k for k in RASN.card.params["share.source"].choices if k != "none"]
    made = [make_source(k, MAP, 3, momentum=0.9, atoms=4, evaluate="frozen_ema") for k in kinds]
    x, y = torch.randn(4, *MAP), torch.tensor([0, 1, 2, 0])
    assert all(torch.broadcast_shapes(source(x, y).shape, x.shape) == x.shape for source in made)
