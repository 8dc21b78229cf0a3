import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_bench.contract.batch import TrainView
from fer_bench.contract.method import Stage
from fer_bench.errors import FerBenchError
from fer_bench.methods._shared.samplers import BalancedCapped, Oversample
from fer_bench.methods.baseline_oversample import BaselineOversample
from fer_bench.methods.rasn import RASN
from fer_bench.rng import numpy_generator

COUNTS = (139, 15, 143, 251, 168, 110, 173)  # FER2013 at 1/29


def view_of(counts, seed=0):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    return TrainView(images=torch.zeros(len(labels), 1, 1, 1), labels=labels, num_classes=len(counts))


def draw(sampler, view, epoch=0, seed=0):
    return sampler(view, epoch, numpy_generator(seed, "sampler", epoch))


def stream_of(cls, **params):
    return cls(cls.card.resolve(params)).streams(Stage())["main"].sampler


def test_train_length_is_the_fold_and_classes_are_balanced_within_sampling_error():
    view = view_of(COUNTS)
    index = draw(stream_of(BaselineOversample), view)
    share = np.bincount(view.labels[index], minlength=7) / len(view)
    error = np.sqrt((1 / 7) * (6 / 7) / len(view))
    assert len(index) == len(view)
    assert np.abs(share - 1 / 7).max() < 4 * error


def test_full_length_visits_every_image_and_every_class_equally_often():
    view = view_of(COUNTS)
    index = draw(stream_of(BaselineOversample, epoch_length="full"), view)
    assert np.bincount(view.labels[index]).tolist() == [max(COUNTS)] * 7
    assert len(np.unique(index)) == len(view)


def test_oversampled_stream_is_shuffled():
    view = view_of(COUNTS)
    labels = view.labels[draw(Oversample(epoch_length="full"), view)]
    halves = [np.bincount(h, minlength=7) / len(h) for h in np.array_split(labels, 2)]
    assert np.abs(halves[0] - halves[1]).max() < 0.06


@pytest.mark.parametrize("sampler", [Oversample(), Oversample(epoch_length="full"), BalancedCapped()], ids=str)
def test_stream_repeats_for_a_seed_and_epoch_and_differs_across_them(sampler):
    view = view_of(COUNTS)
    first = draw(sampler, view, epoch=0)
    assert first.dtype == np.int64
    assert (first == draw(sampler, view, epoch=0)).all()
    assert (first != draw(sampler, view, epoch=1)).any()
    assert (first != draw(sampler, view, epoch=0, seed=1)).any()


@settings(deadline=None, max_examples=30)
@given(counts=st.lists(st.integers(0, 60), min_size=2, max_size=8).filter(any), seed=st.integers(0, 99))
def test_capped_stream_has_equal_classes_and_repeats_no_image_more_than_needed(counts, seed):
    view = view_of(counts)
    index = draw(BalancedCapped(), view, seed=seed)
    per_class = np.bincount(view.labels[index], minlength=len(counts))[np.array(counts) > 0]
    per_image = np.bincount(index, minlength=len(view))
    assert len(index) == len(view)
    assert np.ptp(per_class) <= 1
    for c in np.flatnonzero(counts):
        assert np.ptp(per_image[view.labels == c]) <= 1


def test_rasn_takes_the_capped_stream_only_when_asked():
    assert stream_of(RASN, sampler="balanced_capped") == BalancedCapped()
    assert stream_of(RASN) == stream_of(RASN, sampler="class_weighted_ce") != BalancedCapped()


def test_missing_imbalanced_learn_is_answered_with_the_command_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "imblearn.over_sampling", None)
    with pytest.raises(FerBenchError, match=r"pip install 'imbalanced-learn"):
        draw(Oversample(), view_of((3, 2)))


def test_the_import_that_really_failed_is_named(tmp_path, monkeypatch):
    for name in [m for m in sys.modules if m.split(".")[0] == "imblearn"]:
        monkeypatch.delitem(sys.modules, name)
    package = tmp_path / "imblearn"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "over_sampling.py").write_text("import numpy\nfrom numpy import gone_since_two\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FerBenchError) as raised:
        draw(Oversample(), view_of((3, 2)))
    assert raised.value.what == "oversampling needs imbalanced-learn, which can't be imported"
    assert "cannot import name 'gone_since_two' from 'numpy'" in raised.value.hint
    assert f"{package / 'over_sampling.py'}:2" in raised.value.hint
