"""The curriculum of augmentation: who is tested at which level, what the levels become, and what a probe leaves."""

import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from fer_bench.contract.batch import Batch, TrainView
from fer_bench.contract.method import Stage
from fer_bench.methods._shared.curriculum import Probes, ProbeStrength, Strengthened, next_levels
from fer_bench.methods.cuda_curriculum import CudaCurriculum
from fer_bench.rng import numpy_generator

VIEW = TrainView(images=torch.zeros(60, 1, 1, 1), labels=np.repeat([0, 1, 3], [40, 15, 5]), num_classes=4)
RNG = np.random.default_rng


def test_a_level_gets_more_probes_the_higher_it_is_and_an_empty_class_none():
    classes, levels = Probes(levels=(0, 2, 1, 1), each=10).plan(VIEW.counts, 0)
    counted = np.zeros((4, 3), dtype=int)
    np.add.at(counted, (classes, levels), 1)
    assert counted.tolist() == [[10, 0, 0], [10, 20, 30], [0, 0, 0], [10, 20, 0]]


def test_positions_and_strengths_of_probes_belong_together():
    probes = Probes(levels=(0, 2, 0, 3), each=5)
    positions = np.resize(probes(VIEW, 4, RNG(0)), 200)  # the stream repeats them
    classes, levels = (np.resize(of, 200) for of in probes.plan(VIEW.counts, 4))
    assert VIEW.labels[positions].tolist() == classes.tolist()
    strength = ProbeStrength(probes=probes, step=0.2)(VIEW, positions, 4, RNG(1))
    assert strength.tolist() == pytest.approx((1 + 0.2 * levels).tolist())
    assert pickle.loads(pickle.dumps(probes)) == probes


def test_probes_of_all_classes_are_spread_over_the_epoch():
    classes, _ = Probes(levels=(0, 0, 0, 0), each=30).plan(VIEW.counts, 0)
    thirds = [np.bincount(part, minlength=4)[[0, 1, 3]] for part in np.array_split(classes, 3)]
    assert stats.chi2_contingency(thirds).pvalue > 0.001


def test_half_of_the_images_are_augmented_by_the_level_of_their_class():
    positions = np.resize(np.arange(60), 6000)
    rule = Strengthened(levels=(0, 4, 9, 10), step=0.2, probability=0.5)
    factors = rule(VIEW, positions, 0, RNG(0))
    labels = VIEW.labels[positions]
    assert (factors[labels == 0] == 1).all()
    for c, expected in ((1, 1.8), (3, 3.0)):
        strong = factors[labels == c] > 1
        assert factors[labels == c][strong] == pytest.approx(expected)
        assert stats.binomtest(int(strong.sum()), len(strong), 0.5).pvalue > 0.001


def test_levels_rise_only_if_every_level_is_passed():
    right = np.array([[7, 0, 0], [6, 20, 0], [10, 13, 0], [10, 12, 0], [9, 20, 30], [0, 0, 0]])
    tried = np.array([[10, 0, 0], [10, 20, 0], [10, 20, 0], [10, 20, 0], [10, 20, 30], [0, 0, 0]])
    # by class: passed; 6 of 10 is not more than 0.6; passed; 12 of 20 is not; at the top; not tested
    assert next_levels((0, 1, 1, 1, 2, 0), right, tried, 0.6, 2) == (1, 0, 2, 0, 2, 0)
    assert next_levels((0,), np.array([[0, 0]]), np.array([[10, 0]]), 0.6, 1) == (0,)


class Fixed(torch.nn.Module):
    """Predicts the class that the first pixel says; its BatchNorm and dropout would tell a pass in training mode."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1)
        self.frozen = torch.nn.Sequential(torch.nn.Dropout(0.5)).eval()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        from fer_bench.contract.batch import Output

        assert not self.training
        self.norm(x)
        return Output(logits=torch.nn.functional.one_hot(x[:, 0, 0, 0].long(), 4).float() * self.weight)


def probes_of(y, predicted, strength):
    x = torch.tensor(predicted, dtype=torch.float32).reshape(-1, 1, 1, 1)
    y = torch.tensor(y)
    return Batch(views=[x], y=y, index=y, generator=torch.Generator(), strength=torch.tensor(strength))


def test_probes_are_counted_by_class_and_level_and_leave_nothing_behind(make_method):
    method = make_method(CudaCurriculum, {"levels": 4, "strength": 3.0}, counts=(40, 15, 0, 5))
    method.on_fit_start(torch.nn.Identity(), None)
    model = Fixed()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    method.probe(model, probes_of([0, 0, 1, 3, 3], [0, 1, 1, 3, 0], [1.0, 1.0, 1.5, 3.0, 3.0]))
    assert method.tried.tolist() == [[2, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0] * 5, [0, 0, 0, 0, 2]]
    assert method.right.tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0] * 5, [0, 0, 0, 0, 1]]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.training
    assert model.norm.training
    assert not model.frozen.training, "a frozen part stays in evaluation mode"


def test_levels_survive_a_resume_and_steer_the_streams(make_method):
    method = make_method(CudaCurriculum, {"probes": 2}, counts=(40, 15, 0, 5))
    method.on_fit_start(torch.nn.Identity(), None)
    method.tried[:, 0], method.right[:, 0] = 10, torch.tensor([10, 0, 0, 7])
    again = make_method(CudaCurriculum, {"probes": 2}, counts=(40, 15, 0, 5))
    again.load_state_dict(method.state_dict())
    for each in (method, again):
        each.on_epoch_end(0, {})
        assert each.levels == (1, 0, 0, 1)
        assert int(each.tried.sum()) == 0
    streams = again.streams(Stage())
    assert streams["main"].strength == Strengthened(levels=(1, 0, 0, 1), step=0.2, probability=0.5)
    assert streams["probes"].sampler == Probes(levels=(1, 0, 0, 1), each=2)
    assert streams["probes"].batch_size == 1  # 14 probes in 15 steps of four images
    assert len(streams["probes"].sampler(VIEW, 0, numpy_generator(0, "x"))) == 14
