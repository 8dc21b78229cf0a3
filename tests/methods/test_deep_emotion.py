"""Deep-Emotion: sizes at 48 pixels, where it looks at first, and what it refuses."""

import math

import pytest
import torch

from fer_bench.errors import SpecError
from fer_bench.methods.deep_emotion import DeepEmotion, DeepEmotionMethod


def test_linear_layers_have_640_and_810_inputs_at_48_pixels():
    model = DeepEmotion((1, 48, 48), 7, 0.5)
    inputs = [m.in_features for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert inputs == [640, 32, 810, 50]


@pytest.mark.parametrize("shape", [(1, 18, 18), (3, 24, 31), (1, 64, 64)])
def test_other_images_go_through(shape):
    model = DeepEmotion(shape, 5, 0.0).eval()
    assert model(torch.randn(2, *shape)).logits.shape == (2, 5)


def test_at_first_the_image_is_looked_at_as_it_is():
    x = torch.randn(2, 1, 24, 24)
    torch.testing.assert_close(DeepEmotion((1, 24, 24), 7, 0.5).attended(x), x, rtol=1e-4, atol=1e-4)


def test_a_turned_map_turns_the_image():
    # what is on the right of the output, (1, 0), comes from the bottom of the image, (0, 1): turned counter-clockwise
    model, x = DeepEmotion((1, 24, 24), 7, 0.5), torch.randn(1, 1, 24, 24)
    sin, cos = math.sin(math.pi / 2), math.cos(math.pi / 2)
    with torch.no_grad():
        model.localise[-1].bias.copy_(torch.tensor([cos, -sin, 0, sin, cos, 0]))
    torch.testing.assert_close(model.attended(x), x.rot90(1, (2, 3)), rtol=1e-3, atol=1e-3)


def test_the_window_is_where_the_sampled_pixels_come_from():
    # half the size, shifted right by half and down by a quarter: columns 12 to 23, rows 9 to 20 of 24
    model, x = DeepEmotion((1, 24, 24), 7, 0.5), torch.randn(2, 1, 24, 24)
    assert model.window(x).min() == 1
    with torch.no_grad():
        model.localise[-1].bias.copy_(torch.tensor([0.5, 0, 0.5, 0, 0.5, 0.25]))
    expected = torch.zeros(2, 24, 24)
    expected[:, 9:21, 12:] = 1
    assert torch.equal(model.window(x), expected)


def test_the_same_image_is_predicted_the_same_twice(make_method, make_batch):
    method, x = make_method(DeepEmotionMethod), make_batch().x
    model = method.build_model(None).eval()
    assert torch.equal(method.predict(model, x).logits, method.predict(model, x).logits)


def test_every_weight_learns(make_method, make_batch):
    method = make_method(DeepEmotionMethod)
    model = method.build_model(None).train()
    method.training_step(model, make_batch()).total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.localise[-1].bias.grad.abs().sum() > 0


def test_images_without_room_are_refused(make_method):
    with pytest.raises(SpecError, match="18 pixels or more"):
        make_method(DeepEmotionMethod, image_shape=(1, 17, 48)).build_model(None)
