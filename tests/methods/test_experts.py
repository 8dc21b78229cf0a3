"""Methods with several branches or networks, against sums that the tests work out themselves."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_bench.contract.backbones import Trunk, build_trunk
from fer_bench.contract.batch import Batch, Output, TrainView
from fer_bench.contract.method import Stage
from fer_bench.errors import SpecError
from fer_bench.methods._shared.experts import Experts, each
from fer_bench.methods.bbn import BBN
from fer_bench.methods.deep_ensemble import DeepEnsemble
from fer_bench.methods.ncl import NCL, mutual
from fer_bench.methods.ride import Ride, differences
from fer_bench.methods.sade import Sade, reversed_counts

FER2013 = np.array([3995, 436, 4097, 7215, 4830, 3171, 4965])  # anger disgust fear happiness sadness surprise neutral


@pytest.fixture
def trunks():
    """Trunks that differ from call to call, as the harness gives them."""
    made = iter(range(100))

    def make():
        torch.manual_seed(next(made))
        return build_trunk("resnet10_tiny", in_chans=1, image_size=32)

    return make


def batch_of(size=6, seed=0, aux=(), classes=7, views=1):
    g = torch.Generator().manual_seed(seed)
    x = [torch.randn(size, 1, 32, 32, generator=g) for _ in range(views)]
    batch = Batch(views=x, y=torch.arange(size) % classes, index=torch.arange(size), generator=g)
    return batch.with_(aux={name: batch_of(size, seed=k + 1, classes=classes) for k, name in enumerate(aux)})


def cross_entropy64(logits, y, shift=0.0):
    """Mean of -log softmax(z + shift)_y in float64, image by image."""
    z = logits.detach().double() + torch.as_tensor(shift).double()
    return sum(float(row.logsumexp(0) - row[label]) for row, label in zip(z, y, strict=True)) / len(y)


def finite(model):
    return all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def make(cls, make_method, params=None, **context):
    return make_method(cls, params, image_shape=(1, 32, 32), **context)


SIMPLE = [
    (Ride, {}),
    (Ride, {"loss": "ce", "experts": 2}),
    (Sade, {}),
    (Sade, {"own": 4}),
    (DeepEnsemble, {"networks": 2}),
    (BBN, {}),
    (NCL, {"experts": 2}),
]


def batch_for(cls, **kwargs):
    """A batch with the streams and views that a method of SIMPLE asks for."""
    aux = {BBN: ("reversed",), DeepEnsemble: ("network1",)}.get(cls, ())
    return batch_of(aux=aux, views=2 if cls is NCL else 1, **kwargs)


# -- experts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [2, 4])
def test_experts_answer_with_their_mean_and_keep_their_own_logits(trunks, own):
    model = Experts(trunks, 3, own, lambda d: torch.nn.Linear(d, 5)).eval()
    x = torch.randn(2, 1, 32, 32)
    output = model(x)
    logits = torch.stack([h(f) for h, (_, f) in zip(model.heads, model.branches(x), strict=True)])
    torch.testing.assert_close(output.logits, logits.mean(0))
    assert output.extra["experts"].shape == (2, 3, 5)
    assert all(torch.equal(one.logits, logits[k]) for k, one in enumerate(each(output)))
    assert output.features.shape == (2, 3 * 128)


def test_experts_share_all_but_their_own_stages(trunks):
    def size(own):
        return sum(p.numel() for p in Experts(trunks, 2, own, lambda d: torch.nn.Linear(d, 5)).parameters())

    assert size(1) < size(2) < size(3) < size(4)


@pytest.mark.parametrize(("cls", "params"), SIMPLE)
def test_logits_are_float32_under_bfloat16_autocast(make_method, trunks, cls, params):
    model = make(cls, make_method, params).build_model(trunks).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.randn(2, 1, 32, 32)).logits.dtype == torch.float32


@pytest.mark.parametrize(("cls", "params"), SIMPLE)
def test_one_hot_targets_give_the_loss_of_labels(make_method, trunks, cls, params):
    method = make(cls, make_method, params)
    model, batch = method.build_model(trunks).train(), batch_for(cls)

    def soft(b):
        return b.with_(soft=F.one_hot(b.y, 7).float(), aux={k: soft(v) for k, v in b.aux.items()})

    a, b = (method.training_step(model, x).total for x in (batch, soft(batch)))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("cls", "params"), SIMPLE)
def test_one_image_and_a_class_without_images_leave_finite_gradients(make_method, trunks, cls, params):
    method = make(cls, make_method, params, counts=(10, 4, 0, 2))
    model, batch = method.build_model(trunks).train(), batch_for(cls, size=1, classes=4)
    with torch.no_grad():
        for head in [model.head] if cls is BBN else model.heads:
            head.weight.mul_(1e4)
    loss = method.training_step(model, batch).total
    loss.backward()
    assert torch.isfinite(loss)
    assert finite(model)


@pytest.mark.parametrize(("cls", "params"), [(Sade, {}), (BBN, {})])
def test_backbone_that_cannot_be_divided_is_refused(make_method, cls, params):
    class Unknown(torch.nn.Module):
        num_features = 4

        def __init__(self):
            super().__init__()
            self.somehow = torch.nn.Linear(4, 4)

    def backbone():
        return Trunk(Unknown())

    with pytest.raises(SpecError, match="can't be divided"):
        make(cls, make_method, params).build_model(backbone)


# -- SADE ------------------------------------------------------------------------------------------------------------


def test_counts_of_fer2013_in_reverse():
    # by size: disgust 436, surprise 3171, anger 3995, fear 4097, sadness 4830, neutral 4965, happiness 7215
    assert reversed_counts(FER2013).tolist() == [4830, 7215, 4097, 436, 3995, 4965, 3171]


def test_empty_classes_take_no_part_in_the_reversal():
    assert reversed_counts([10, 0, 4, 7]).tolist() == [4, 0, 10, 7]
    assert reversed_counts([5, 5, 9]).tolist() == [9, 5, 5]


def test_loss_of_sade_is_the_sum_of_three_shifted_cross_entropies(make_method, trunks):
    method = make(Sade, make_method)
    model, batch = method.build_model(trunks).train(), batch_of()
    loss = method.training_step(model, batch)
    one, two, three = loss.output.extra["experts"].unbind(1)
    prior = np.log(FER2013 / 28709)
    reverse = np.log(np.array([4830, 7215, 4097, 436, 3995, 4965, 3171]) / 28709)
    expected = cross_entropy64(one, batch.y)
    expected += cross_entropy64(two, batch.y, prior) + cross_entropy64(three, batch.y, prior - 2 * reverse)
    assert loss.total.item() == pytest.approx(expected, rel=1e-6)


def test_shifts_of_sade_by_hand(make_method):
    method = make(Sade, make_method, {"tau": 2.0}, counts=(80, 20))
    a, b = math.log(0.8), math.log(0.2)
    np.testing.assert_allclose(method.shifts, [[0, 0], [a, b], [a - 2 * b, b - 2 * a]])


# -- RIDE ------------------------------------------------------------------------------------------------------------


def softmax64(z):
    e = [math.exp(v - max(z)) for v in z]
    return [v / sum(e) for v in e]


def differences_by_loops(logits, temperatures):
    """T̄² Σ_c q_c log(q_c / p_c) of each image and expert; q of the mean logits, p of the expert, both over T_c."""
    rows = []
    for image in logits.double().tolist():
        mean = [sum(column) / len(image) for column in zip(*image, strict=True)]
        q = softmax64([z / t for z, t in zip(mean, temperatures, strict=True)])
        row = []
        for expert in image:
            p = softmax64([z / t for z, t in zip(expert, temperatures, strict=True)])
            row.append(np.mean(temperatures) ** 2 * sum(a * math.log(a / b) for a, b in zip(q, p, strict=True)))
        rows.append(row)
    return torch.tensor(rows)


def test_temperatures_of_classes_by_hand(make_method):
    # C π ρ + 1 - ρ with ρ = 0.05 and π = (0.8, 0.2): 0.05 * 1.6 + 0.95 = 1.03 and 0.05 * 0.4 + 0.95 = 0.97
    method = make(Ride, make_method, counts=(80, 20))  # two epochs; the weights set in after 0.8 of them
    np.testing.assert_allclose(method.temperatures(1), [1, 1])
    np.testing.assert_allclose(method.temperatures(2), [1, 0.97 / 1.03])
    always = make(Ride, make_method, {"weights": "none", "temperature": 2.0}, counts=(80, 20))
    np.testing.assert_allclose(always.temperatures(0), [2, 2 * 0.97 / 1.03])


def test_difference_of_two_experts_by_hand():
    # logits (1, -1) and (-1, 1): the mean is (0, 0), so q = 1/2 each; KL = -log 2 - ½ log(p (1 - p)), p = σ(2)
    p = 1 / (1 + math.exp(-2))
    logits = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    expected = -math.log(2) - 0.5 * math.log(p * (1 - p))
    assert differences(logits, np.ones(2))[0].tolist() == pytest.approx([expected] * 2, rel=1e-6)


def test_differences_equal_plain_loops():
    logits, t = 3 * torch.randn(4, 3, 5), np.array([1.0, 0.9, 0.8, 0.7, 0.6])
    torch.testing.assert_close(differences(logits, t), differences_by_loops(logits, t).float(), rtol=1e-5, atol=1e-5)


def test_the_mean_answer_gets_no_gradient():
    logits = torch.randn(1, 2, 3, requires_grad=True)
    differences(logits, np.ones(3))[:, 0].sum().backward()
    assert logits.grad[0, 0].abs().sum() > 0
    assert logits.grad[0, 1].abs().sum() == 0


@pytest.mark.parametrize("epoch", [0, 2])
def test_loss_of_ride_is_that_of_its_experts_less_their_difference(make_method, trunks, epoch):
    method = make(Ride, make_method, {"diversity": 0.3})
    model, batch = method.build_model(trunks).train(), batch_of().with_(epoch=epoch)
    loss = method.training_step(model, batch)
    logits = loss.output.extra["experts"].detach()
    margins = [0.2874, 0.5000, 0.2856, 0.2479, 0.2741, 0.3045, 0.2722]  # of FER2013, as published to four digits
    weights = [0.5282, 4.0772, 0.5175, 0.3384, 0.4541, 0.6401, 0.4445] if epoch == 2 else [1.0] * 7
    total = 0.0
    for one in logits.double().unbind(1):
        for z, y in zip(one, batch.y.tolist(), strict=True):
            z[y] -= 30 * margins[y]
            total += weights[y] * float(z.logsumexp(0) - z[y]) / 6
    raw = 7 * FER2013 / 28709 * 0.05 + 0.95
    t = raw / raw.max() if epoch == 2 else np.ones(7)
    total -= 0.3 * float(differences_by_loops(logits, t).sum(1).mean())
    assert loss.total.item() == pytest.approx(total, rel=1e-3)


def test_difference_of_certain_experts_is_finite():
    logits = (1e4 * torch.randn(4, 3, 5)).requires_grad_()
    loss = differences(logits, np.full(5, 0.1)).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


# -- NCL -------------------------------------------------------------------------------------------------------------


def mutual_by_loops(logits):
    """Σ over ordered pairs of networks of KL(p_j, p_i), over M - 1, image by image, in float64."""
    totals = []
    for image in logits.double().tolist():
        p = [softmax64(z) for z in image]
        pairs = [(i, j) for i in range(len(p)) for j in range(len(p)) if i != j]
        kl = [sum(a * math.log(a / b) for a, b in zip(p[j], p[i], strict=True)) for i, j in pairs]
        totals.append(sum(kl) / (len(p) - 1))
    return totals


def test_what_networks_learn_from_one_another_equals_plain_loops():
    logits = 2 * torch.randn(5, 3, 4)
    assert mutual(logits).tolist() == pytest.approx(mutual_by_loops(logits), rel=1e-5)
    assert mutual(logits[:, :1].expand(-1, 3, -1)).tolist() == pytest.approx([0] * 5, abs=1e-6)


def test_hardest_classes_are_the_label_and_those_of_largest_logits(make_method):
    method = make(NCL, make_method, {"hard": 0.4})  # three of seven
    logits = torch.tensor([[5.0, 4, 3, 2, 1, 0, -1]] * 2)
    hard = method.hard(logits, torch.tensor([6, 1]))
    assert hard[0].nonzero()[:, 0].tolist() == [0, 1, 6]
    assert hard[1].nonzero()[:, 0].tolist() == [0, 1, 2]
    assert make(NCL, make_method, {"hard": 0.01}).hard(logits, torch.tensor([6, 1])).sum(1).tolist() == [2, 2]


def test_loss_of_ncl_is_the_sum_of_its_parts(make_method, trunks):
    method = make(NCL, make_method, {"experts": 2, "distill": 0.5, "hard_weight": 2.0})  # two hard classes of seven
    model, batch = method.build_model(trunks).train(), batch_of(views=2)
    loss = method.training_step(model, batch)
    z = loss.output.extra["experts"].detach().double()
    balanced = z + torch.tensor(np.log(FER2013 / 28709))
    expected = sum(cross_entropy64(one, batch.y) for one in balanced.unbind(1))
    hard_loss, hard_mutual = 0.0, 0.0
    for i, y in enumerate(batch.y.tolist()):
        rival = max((c for c in range(7) if c != y), key=lambda c: float(z[i, 0, c]))
        pair = balanced[i][:, [y, rival]]
        hard_loss += sum(float(one.logsumexp(0) - one[0]) for one in pair) / 6
        hard_mutual += mutual_by_loops(pair[None])[0] / 6
    expected += 2 * hard_loss + 0.5 * (sum(mutual_by_loops(balanced)) / 6 + hard_mutual)
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)


def test_each_network_of_ncl_sees_its_own_view(make_method, trunks):
    method = make(NCL, make_method)
    assert method.streams(Stage())["main"].views == 3
    model, batch = method.build_model(trunks).eval(), batch_of(views=3)
    found = method.training_step(model, batch).output.extra["experts"][:, 2]
    torch.testing.assert_close(found, model.heads[2](model.branches.trunks[2](batch.views[2])[1]))


# -- BBN -------------------------------------------------------------------------------------------------------------


def test_reversed_stream_draws_classes_in_proportion_to_1_over_n(make_method):
    sampler = make(BBN, make_method).streams(Stage())["reversed"].sampler
    labels = np.repeat([0, 1, 3], [60, 30, 10])  # class 2 has no images
    view = TrainView(images=torch.zeros(100, 1, 1, 1), labels=labels, num_classes=4)
    drawn = np.concatenate([sampler(view, e, np.random.default_rng(e)) for e in range(300)])
    shares = np.bincount(labels[drawn], minlength=4) / len(drawn)
    np.testing.assert_allclose(shares, np.array([1 / 60, 1 / 30, 0, 1 / 10]) / 0.15, atol=0.01)
    assert len(drawn) == 300 * 100
    assert set(drawn) == set(range(100))


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("parabolic", [1, 0.75]), ("linear", [1, 0.5]), ("cosine", [1, 0.5**0.5]), ("constant", [0.5, 0.5])],
)
def test_weight_of_the_first_branch_falls_over_the_epochs(make_method, decay, expected):
    method = make(BBN, make_method, {"decay": decay})  # two epochs
    assert [method.share(e) for e in range(2)] == pytest.approx(expected)


@pytest.mark.parametrize("epoch", [0, 1])
def test_loss_of_bbn_mixes_features_and_losses_alike(make_method, trunks, epoch):
    method = make(BBN, make_method)
    model, batch = method.build_model(trunks).train(), batch_of(aux=("reversed",)).with_(epoch=epoch)
    a = model.branches(batch.x)[0][1].double()
    b = model.branches(batch.aux["reversed"].x)[1][1].double()
    share = [1.0, 0.75][epoch]
    w, bias = model.head.weight.double(), model.head.bias.double()
    logits = 2 * share * a @ w[:, :128].T + 2 * (1 - share) * b @ w[:, 128:].T + bias
    expected = share * cross_entropy64(logits, batch.y)
    expected += (1 - share) * cross_entropy64(logits, batch.aux["reversed"].y)
    assert method.training_step(model, batch).total.item() == pytest.approx(expected, rel=1e-5)


def test_both_branches_of_bbn_count_alike_at_test(make_method, trunks):
    model = make(BBN, make_method).build_model(trunks).eval()
    x = torch.randn(3, 1, 32, 32)
    features = torch.cat([f for _, f in model.branches(x)], dim=1)
    torch.testing.assert_close(model(x).logits, model.head(features))


# -- ensemble --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["probabilities", "log_probabilities"])
def test_ensemble_averages_probabilities_or_their_logarithms(make_method, trunks, average):
    model = make(DeepEnsemble, make_method, {"average": average}).build_model(trunks).eval()
    output = model(torch.randn(3, 1, 32, 32))
    p = output.extra["experts"].double().softmax(2)
    assert not torch.equal(p[:, 0], p[:, 1])
    expected = p.mean(1).log() if average == "probabilities" else p.log().mean(1)
    torch.testing.assert_close(output.logits.double(), expected, rtol=1e-5, atol=1e-6)


def test_each_network_learns_from_its_own_stream_as_it_would_alone(make_method, trunks):
    method = make(DeepEnsemble, make_method, {"networks": 2})
    model, batch = method.build_model(trunks).train(), batch_of(aux=("network1",))
    streams = method.streams(Stage())
    assert list(streams) == ["main", "network1"]
    method.training_step(model, batch).total.backward()
    found = model.branches.trunks[1].body.conv1.weight.grad.clone()
    model.zero_grad()
    other = batch.aux["network1"]
    F.cross_entropy(model.heads[1](model.branches.trunks[1](other.x)[1]), other.y).backward()
    torch.testing.assert_close(found, model.branches.trunks[1].body.conv1.weight.grad)
    assert model.branches.trunks[0].body.conv1.weight.grad is None


def test_each_stream_of_an_ensemble_is_mixed_by_itself(make_method):
    method = make(DeepEnsemble, make_method, {"networks": 2, "mix": "mixup"})
    batch = batch_of(aux=("network1",))
    mixed = method.on_batch(batch)
    assert mixed.soft is not None
    assert mixed.aux["network1"].soft is not None
    assert not torch.equal(mixed.soft.max(1).values, mixed.aux["network1"].soft.max(1).values)


def test_output_of_the_training_step_has_a_row_for_each_image(make_method, trunks):
    for cls, params in SIMPLE:
        method = make(cls, make_method, params)
        output = method.training_step(method.build_model(trunks).train(), batch_for(cls)).output
        assert isinstance(output, Output)
        assert output.logits.shape == (6, 7)
