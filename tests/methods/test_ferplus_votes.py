"""The four modes on rows of votes worked out by hand from the rules of the paper and its code."""

import dataclasses

import numpy as np
import pytest
import torch

from fer_bench.contract.batch import Output, TrainView
from fer_bench.errors import SpecError
from fer_bench.methods.ferplus_votes import FERPlusVotes, drawn, vote_targets, without_outliers

MODES = ("majority", "probability", "crossentropy", "multi_target")


def votes(*counts):
    """Shares of counted votes without single ones, one row."""
    shares = torch.tensor([counts], dtype=torch.float32) / sum(counts)
    return without_outliers(shares, 0.19)


def targets(mode, *counts):
    target, kept = vote_targets(votes(*counts), mode)
    return [round(t, 4) for t in target[0].tolist()], bool(kept[0])


def test_single_votes_are_dropped():
    # 6 2 1 1 of ten: 6/8 and 2/8 are left; 3 2 1 of six who named an emotion: 3/5 and 2/5
    assert votes(6, 2, 1, 1).tolist() == [[0.75, 0.25, 0, 0]]
    torch.testing.assert_close(votes(3, 2, 1), torch.tensor([[0.6, 0.4, 0.0]]))


def test_an_image_of_single_votes_only_is_left_out_of_all_modes():
    for mode in MODES:
        assert targets(mode, 1, 1, 1, 1, 1, 1) == ([0] * 6, False)


def test_majority_needs_more_than_half():
    assert targets("majority", 6, 2, 2, 0) == ([1, 0, 0, 0], True)
    assert targets("majority", 5, 5, 0, 0) == ([0, 0, 0, 0], False)
    assert targets("majority", 4, 3, 1, 1, 1) == ([1, 0, 0, 0, 0], True)  # 4/7 once the single votes are gone


@pytest.mark.parametrize("mode", ["probability", "crossentropy"])
def test_distribution_ends_with_the_label_that_makes_it_three_quarters(mode):
    assert targets(mode, 8, 2, 0) == ([1, 0, 0], True)  # 0.8 already
    assert targets(mode, 5, 3, 2) == ([0.625, 0.375, 0], True)  # 0.8 with the second
    assert targets(mode, 4, 3, 3) == ([0.4, 0.3, 0.3], True)  # the tie comes in together
    assert targets(mode, 4, 2, 2, 2) == ([0.4, 0.2, 0.2, 0.2], False)  # four labels are too many


def test_multi_target_allows_labels_with_three_of_ten_votes():
    assert targets("multi_target", 4, 3, 3) == ([0.3333, 0.3333, 0.3333], True)
    assert targets("multi_target", 6, 2, 2) == ([1, 0, 0], True)
    assert targets("multi_target", 4, 2, 2, 2) == ([1, 0, 0, 0], False)  # 0.4 of the votes in all


def criterion_of(make_method, mode):
    return make_method(FERPlusVotes, {"mode": mode}).criterion


def test_multi_target_loss_is_that_of_the_likeliest_allowed_label(make_method):
    p = torch.tensor([[0.2, 0.5, 0.3], [0.0001, 0.0999, 0.9]], requires_grad=True)
    target = torch.tensor([[0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])
    losses = criterion_of(make_method, "multi_target")(Output(logits=p.log()), target)
    # of 0.2 and 0.3 the larger; in the second row 0.001 * 0.9 is more than 1 * 0.0001
    np.testing.assert_allclose(losses.detach(), [-np.log(0.3), -np.log(0.0009)], rtol=1e-5)
    smoothed = criterion_of(make_method, "multi_target")(Output(logits=p.log()), target * 0.7 + 0.1)
    torch.testing.assert_close(smoothed, losses)


def test_drawn_labels_have_the_frequencies_of_the_votes_and_never_a_share_of_zero():
    shares = torch.tensor([[0.0, 0.25, 0.0, 0.75]]).expand(4000, 4)
    counts = drawn(shares, torch.Generator().manual_seed(0)).sum(0)
    assert counts[[0, 2]].tolist() == [0, 0]
    assert abs(counts[1].item() - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5


def batch_with(make_batch, rows):
    return dataclasses.replace(make_batch(size=len(rows)), soft=torch.tensor(rows) / 10)


ROWS = [[6.0, 4, 0, 0, 0, 0, 0], [5.0, 5, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 3.0, 7]]


@pytest.mark.parametrize(
    ("mode", "rows"),
    [
        ("majority", [(0, {0: 1.0}), (2, {6: 1.0})]),
        ("crossentropy", [(0, {0: 0.6, 1: 0.4}), (1, {0: 0.5, 1: 0.5}), (2, {5: 0.3, 6: 0.7})]),
    ],
)
def test_loss_is_the_mean_over_images_with_agreement(make_method, tiny_trunk, make_batch, mode, rows):
    method, batch = make_method(FERPlusVotes, {"mode": mode}), batch_with(make_batch, ROWS)
    model = method.build_model(tiny_trunk).eval()
    loss = method.training_step(model, batch)
    log_p = model(batch.x).logits.detach().double().log_softmax(1)
    expected = [-sum(q * log_p[i, k].item() for k, q in target.items()) for i, target in rows]
    assert loss.total.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_batch_without_agreement_costs_nothing(make_method, tiny_trunk, make_batch):
    method, batch = make_method(FERPlusVotes, {"mode": "majority"}), batch_with(make_batch, [ROWS[1]] * 2)
    model = method.build_model(tiny_trunk).train()
    loss = method.training_step(model, batch).total
    loss.backward()
    assert loss.item() == 0.0


def test_labels_are_drawn_anew_each_step_and_repeat_in_the_same_step(make_method, tiny_trunk, make_batch):
    method, batch = make_method(FERPlusVotes), batch_with(make_batch, [ROWS[1]] * 4)
    model = method.build_model(tiny_trunk).eval()
    losses = []
    for step in (0, 0, 1, 2, 3):
        method.moment = ("train", 0, step)
        losses.append(method.training_step(model, batch).total.item())
    assert losses[0] == losses[1]
    assert len(set(losses[1:])) > 1


def test_a_fold_without_votes_is_refused(make_method):
    view = TrainView(images=torch.zeros(2, 1, 2, 2), labels=np.array([0, 1]), num_classes=7)
    with pytest.raises(SpecError, match="needs votes"):
        make_method(FERPlusVotes).on_fit_start(None, view)
