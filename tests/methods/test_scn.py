"""SCN: rank regularisation and relabelling worked out by hand, and what a resumed run must remember."""

import dataclasses

import numpy as np
import pytest
import torch

from fer_bench.contract.batch import LossOut, Output, TrainView
from fer_bench.methods._shared.importance import ImportanceHead, rank_regularisation
from fer_bench.methods.scn import SCN, relabelled


def view(labels):
    return TrainView(images=torch.zeros(len(labels), 1, 2, 2), labels=np.asarray(labels), num_classes=7)


def test_logits_are_multiplied_by_the_importance_of_their_image():
    head, f = ImportanceHead(5, 3).double(), torch.randn(4, 5)
    logits, importance = head.float()(f)
    w, b = (p.detach().double().numpy() for p in head.weigh.parameters())
    alpha = 1 / (1 + np.exp(-(f.double().numpy() @ w.T + b)))
    v, c = (p.detach().double().numpy() for p in head.classify.parameters())
    np.testing.assert_allclose(importance.detach(), alpha[:, 0], rtol=1e-5)
    np.testing.assert_allclose(logits.detach(), alpha * (f.double().numpy() @ v.T + c), rtol=1e-4, atol=1e-6)


def test_rank_regularisation_by_hand():
    # the highest 7 of 10: 0.9, 0.8, 0.8, 0.7, 0.7, 0.6, 0.6, mean 5.1/7; the others 0.5, 0.4, 0.3, mean 0.4
    alpha = torch.tensor([0.5, 0.9, 0.6, 0.8, 0.4, 0.7, 0.8, 0.3, 0.7, 0.6], requires_grad=True)
    loss = rank_regularisation(alpha, 0.7, 0.5)
    assert loss.item() == pytest.approx(0.5 - (5.1 / 7 - 0.4), abs=1e-6)
    loss.backward()
    expected = [1 / 3, -1 / 7, -1 / 7, -1 / 7, 1 / 3, -1 / 7, -1 / 7, 1 / 3, -1 / 7, -1 / 7]
    torch.testing.assert_close(alpha.grad, torch.tensor(expected))


def test_groups_further_apart_than_the_margin_cost_nothing():
    alpha = torch.tensor([0.9, 0.9, 0.9, 0.1], requires_grad=True)
    loss = rank_regularisation(alpha, 0.7, 0.15)  # two in the high group: ⌊2.8⌋; means 0.9 and 0.5
    loss.backward()
    assert loss.item() == 0.0
    assert alpha.grad.abs().sum() == 0.0


def test_the_high_group_holds_63_of_90_images():
    alpha = torch.cat([torch.ones(63), torch.zeros(27)])
    assert rank_regularisation(alpha, 0.7, 1.0).item() == 0.0  # 0.7 * 90 is 62.99... in floating point


@pytest.mark.parametrize("size", [1, 2])
def test_a_batch_too_small_for_two_groups_is_not_regularised(size):
    loss = rank_regularisation(torch.full((size,), 0.5, requires_grad=True), 0.4, 0.15)
    assert loss.item() == 0.0
    loss.backward()


def test_an_image_is_relabelled_where_another_class_is_more_likely_by_more_than_the_margin():
    # p: (.25, .25, .5), label 0: .5 - .25 > .2, so 2; (.4, .5, .1), label 0: .1 < .2, stays; label 1 is the highest
    p = torch.tensor([[0.25, 0.25, 0.5], [0.4, 0.5, 0.1], [0.1, 0.8, 0.1]])
    assert relabelled(p.log(), torch.tensor([0, 0, 1]), 0.2).tolist() == [2, 0, 1]
    assert relabelled(p.log(), torch.tensor([0, 0, 1]), 0.05).tolist() == [2, 1, 1]
    assert relabelled(p.log(), torch.tensor([0, 0, 1]), 1.0).tolist() == [0, 0, 1]


def ended_step(method, batch, epoch, logits):
    batch = method.on_batch(dataclasses.replace(batch, epoch=epoch))
    method.on_step_end(None, batch, LossOut(total=torch.zeros(()), output=Output(logits=logits)))


def test_labels_change_from_the_chosen_epoch_on_and_the_next_batch_has_them(make_method, make_batch):
    method = make_method(SCN, {"relabel.from": 0.5})  # of 2 epochs
    batch = dataclasses.replace(make_batch(), index=torch.tensor([3, 0, 5, 1]), y=torch.tensor([0, 1, 2, 3]))
    method.on_fit_start(None, view([1, 3, 6, 0, 6, 2]))
    sure_of_6 = torch.eye(7)[[6, 1, 2, 6]] * 20
    ended_step(method, batch, 0, sure_of_6)
    assert method.on_batch(batch).y.tolist() == [0, 1, 2, 3]
    ended_step(method, batch, 1, sure_of_6)
    assert method.on_batch(batch).y.tolist() == [6, 1, 2, 6]
    assert method.labels.tolist() == [1, 6, 6, 6, 6, 2]


def test_new_labels_survive_a_resume(make_method, make_batch):
    method, other = make_method(SCN, {"relabel.from": 0.0}), make_method(SCN, {"relabel.from": 0.0})
    method.on_fit_start(None, view([0, 0, 0, 0]))
    ended_step(method, dataclasses.replace(make_batch(), y=torch.zeros(4, dtype=torch.int64)), 0, torch.eye(7)[3:] * 9)
    other.on_fit_start(None, view([0, 0, 0, 0]))
    other.load_state_dict(method.state_dict())
    assert other.labels.tolist() == [3, 4, 5, 6]


def test_votes_give_way_to_a_new_label_only(make_method, make_batch):
    method = make_method(SCN)
    method.on_fit_start(None, view([0, 5, 0, 0]))
    votes = torch.tensor([[0.6, 0.4, 0, 0, 0, 0, 0]]).expand(4, 7)
    batch = dataclasses.replace(make_batch(), y=torch.zeros(4, dtype=torch.int64), soft=votes)
    soft = method.on_batch(batch).soft
    assert torch.equal(soft[[0, 2, 3]], votes[:3])
    assert soft[1].tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_a_step_gives_every_parameter_a_gradient(make_method, tiny_trunk, make_batch):
    method, batch = make_method(SCN, {"margin": 1.0}), make_batch()
    method.on_fit_start(None, view(batch.y.numpy()))
    model = method.build_model(tiny_trunk).train()
    loss = method.training_step(model, method.on_batch(batch))
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    torch.testing.assert_close(loss.total, loss.parts["ce"] + loss.parts["rank"])
