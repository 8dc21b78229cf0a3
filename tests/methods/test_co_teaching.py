"""Co-teaching: which images each network learns from, worked out by hand."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fer_bench.contract.batch import Output
from fer_bench.methods.co_teaching import CoTeaching, Pair, kept


@pytest.mark.parametrize(("images", "forgotten", "left"), [(128, 0.2, 102), (10, 0.3, 7), (10, 0.0, 10), (1, 0.9, 1)])
def test_images_that_are_left(images, forgotten, left):
    assert kept(images, forgotten) == left


class Fixed(nn.Module):
    """Two tables of logits that learn."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.tensor(t)) for t in (first, second))

    def forward(self, x):
        return Output(logits=self.first, extra={"other": self.second})


def test_each_network_learns_from_the_images_that_are_easy_for_the_other(make_method, make_batch):
    # label 0 everywhere; the margin of class 0 over class 1 is how easy an image is
    first = [[4.0, 0], [3, 0], [0, 0], [-1, 0]]  # easiest: 0 and 1
    second = [[0.0, 0], [4, 0], [3, 0], [-9, 0]]  # easiest: 1 and 2
    method = make_method(CoTeaching, {"forget": 0.5, "ramp": 0.0}, counts=[3, 1])
    batch = dataclasses.replace(make_batch(), y=torch.zeros(4, dtype=torch.int64))
    model = Fixed(first, second)
    loss = method.training_step(model, batch)
    by_image = [F.cross_entropy(torch.tensor(t), batch.y, reduction="none") for t in (first, second)]
    torch.testing.assert_close(loss.total, by_image[0][[1, 2]].mean() + by_image[1][[0, 1]].mean())
    loss.total.backward()
    assert model.first.grad.abs().sum(1).gt(0).tolist() == [False, True, True, False]
    assert model.second.grad.abs().sum(1).gt(0).tolist() == [True, True, False, False]


def test_the_share_left_out_rises_to_its_end(make_method):
    method = make_method(CoTeaching, {"forget": 0.4, "ramp": 0.2})
    object.__setattr__(method.ctx, "epochs", 20)
    shares = [method._forgotten(epoch) for epoch in (0, 1, 2, 4, 19)]
    assert shares == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.4])


def test_prediction_is_that_of_the_first_network(make_method, tiny_trunk, make_batch):
    method = make_method(CoTeaching)
    model = method.build_model(tiny_trunk).eval()
    assert isinstance(model, Pair)
    before = method.predict(model, make_batch().x)
    assert before.extra == {}
    with torch.no_grad():
        for p in (*model.networks.trunks[1].parameters(), *model.heads[1].parameters()):
            p.fill_(0.1)
    assert torch.equal(method.predict(model, make_batch().x).logits, before.logits)


def test_both_networks_learn(make_method, tiny_trunk, make_batch):
    method, batch = make_method(CoTeaching), make_batch()
    model = method.build_model(tiny_trunk).train()
    loss = method.training_step(model, batch)
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    soft = method.training_step(model, dataclasses.replace(batch, soft=F.one_hot(batch.y, 7).float()))
    torch.testing.assert_close(soft.total, loss.total)
