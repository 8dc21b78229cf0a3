"""Where a method meets the recipe: smoothing applied once, weights that reach every branch, units, precision."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_bench import Batch, Output, Stage
from fer_bench.methods._shared.centers import squared_gaps
from fer_bench.methods._shared.contrastive import compared_view
from fer_bench.methods._shared.rare_features import pairs
from fer_bench.methods.ada_df import AdaDF
from fer_bench.methods.gcl import Gcl
from fer_bench.methods.mek import MEK
from fer_bench.methods.mislas import Mislas
from fer_bench.methods.ncm import Ncm
from fer_bench.methods.weight_balancing import WeightBalancing


def batch_of(y, size=24, **fields):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(y), 1, size, size, generator=generator)
    y = torch.tensor(y)
    return Batch(views=[x], y=y, index=torch.arange(len(y)), generator=generator, **fields)


def test_second_stage_of_mislas_smooths_the_rarest_class_not_at_all_whatever_the_recipe_does(make_method, tiny_trunk):
    method = make_method(Mislas)
    model = method.build_model(tiny_trunk).eval()
    method.moment = ("classifier", 0, 0)
    y = [1, 1, 1]  # disgust, whose ε is 0: plain cross-entropy
    one_hot = F.one_hot(torch.tensor(y), 7).float()
    smoothed = method.training_step(model, batch_of(y, soft=one_hot, smoothing=0.1))
    expected = F.cross_entropy(smoothed.output.logits, torch.tensor(y))
    assert smoothed.total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_class_weights_of_ada_df_reach_the_branch_that_predicts(make_method, tiny_trunk):
    gradients = {}
    for weights in ("none", "inverse"):
        method = make_method(AdaDF, {"weights": weights}, counts=np.array([90, 10, 50]))
        model = method.build_model(tiny_trunk).train()
        method.on_fit_start(model, None)
        torch.manual_seed(0)
        parts = method.training_step(model, batch_of([0, 1, 2, 0, 1, 2])).parts
        gradients[weights] = parts["divergence"]
    assert gradients["none"].item() != pytest.approx(gradients["inverse"].item(), rel=1e-3)


def test_score_of_an_absent_class_is_the_same_alone_and_in_a_batch(make_method):
    method = make_method(Ncm, {"features": "raw", "distance": "euclidean"}, counts=np.array([5, 0, 5]))
    rng = np.random.default_rng(0)
    method.fit_estimator(rng.normal(0, 10, (10, 4)), np.repeat([0, 2], 5))
    rows = rng.normal(0, 30, (8, 4))
    together = method.predict_estimator(rows)
    alone = np.concatenate([method.predict_estimator(row[None]) for row in rows])
    assert (together == alone).all()
    assert (together[:, 1] < together[:, [0, 2]].min(1)).all()


def test_bound_on_norms_holds_for_the_average_of_weights_too(make_method, tiny_trunk):
    method = make_method(WeightBalancing)
    model = method.build_model(tiny_trunk)
    method.bound = 0.5
    with torch.no_grad():
        model.head.weight.copy_(F.normalize(torch.randn(7, model.head.in_features), dim=1) * 2)
    method.before_eval(model, None)
    assert model.head.weight.norm(dim=1).tolist() == pytest.approx([0.5] * 7, rel=1e-5)


def test_classifier_stage_of_gcl_is_balanced_by_its_sampler_alone(make_method):
    method = make_method(Gcl, {"weights": "inverse"})
    method.moment = ("classifier", 3, 0)
    assert method.image_weights(batch_of([0, 1])) is None
    method.moment = ("representation", 0, 0)
    assert method.image_weights(batch_of([0, 1])).tolist() == pytest.approx([1.0266, 9.4066], abs=1e-4)


def test_views_that_are_compared_shift_by_an_eighth_of_the_stored_image(make_context):
    ctx = make_context(image_shape=(1, 224, 224))
    assert compared_view("strong", ctx).shift == 28
    assert compared_view("strong", replace(ctx, stored_shape=(1, 48, 48))).shift == 6


@pytest.mark.parametrize(("heads", "tails", "strength"), [(5, 3, 2.0), (3, 5, 2.0), (4, 2, 1.0), (2, 7, 10.0)])
def test_pairs_of_frequent_and_rare_images_stay_within_the_batch(heads, tails, strength):
    a, b = pairs(heads, tails, strength)
    assert len(a) == len(b) == max(1, math.floor(max(heads, tails) * strength / min(heads, tails))) * min(heads, tails)
    assert max(a) < heads
    assert max(b) < tails


def test_feature_on_its_centre_has_no_gap_under_bfloat16():
    centers = torch.linspace(-6.1, 6.3, 12).reshape(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gaps = squared_gaps(centers, centers, torch.eye(3))
    assert gaps.abs().max() == 0


def test_smooth_labels_of_mek_keep_their_share_under_bfloat16(make_method):
    method = make_method(MEK, {"smoothing": 0.1})
    logits = torch.full((1, 7), -40.0)
    logits[0, 3] = 40.0  # all on the label: the loss is 80 times what the others have
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method.criterion(Output(logits=logits), torch.tensor([3]))
    assert loss.item() == pytest.approx(8.0, abs=1e-4)


def test_decay_of_weight_balancing_grows_with_that_of_the_recipe(make_method, tiny_trunk):
    method = make_method(WeightBalancing)
    method.ctx = replace(method.ctx, recipe={"weight_decay": 0.05})
    groups = method.param_groups(method.build_model(tiny_trunk), Stage())
    assert groups[0]["weight_decay"] == pytest.approx(0.5)
