"""A second pass over a batch leaves nothing behind but gradients, and meets the same dropout and noise."""

import pytest
import torch
from torch import nn

from fer_bench.contract.method import Method
from fer_bench.errors import TrainingError
from fer_bench.training.second_pass import SecondPass, looks_twice


def autocast(enabled=False):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)).train()


def shifts_of(model, size):
    return [torch.full_like(p, size) for p in model.parameters()]


def test_weights_buffers_and_generators_are_bitwise_what_they_were():
    model, x, generator = network(), torch.randn(6, 3), torch.Generator().manual_seed(3)
    again = SecondPass(model, autocast(), generator)
    model(x), torch.rand(3, generator=generator)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    states = torch.get_rng_state(), generator.get_state()
    with again(shifts_of(model, 0.1)):
        assert torch.equal(model[0].weight, before["0.weight"] + 0.1)
        model(x), torch.rand(5, generator=generator)
        assert not torch.equal(model[1].running_mean, before["1.running_mean"])

    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(generator.get_state(), states[1])


def test_second_pass_repeats_dropout_and_the_draws_of_the_batch():
    model, x, generator = network(), torch.randn(6, 3), torch.Generator().manual_seed(3)
    again = SecondPass(model, autocast(), generator)
    first, drawn = model(x), torch.rand(4, generator=generator)
    for _ in range(2):
        with again([None] * 6):
            assert torch.equal(model(x), first)
            assert torch.equal(torch.rand(4, generator=generator), drawn)
    assert not torch.equal(model(x), first)


def test_everything_is_taken_back_when_the_method_fails_inside():
    model = network()
    again = SecondPass(model, autocast(), torch.Generator())
    before = model[0].weight.detach().clone()
    with pytest.raises(ZeroDivisionError), again(shifts_of(model, 1.0)):
        _ = 1 / 0
    assert torch.equal(model[0].weight, before)
    with again(shifts_of(model, 1.0)):
        pass


def test_second_pass_runs_in_the_precision_of_the_first():
    model = network()
    with SecondPass(model, autocast(enabled=True), torch.Generator())(shifts_of(model, 0.0)):
        assert model(torch.randn(4, 3)).dtype == torch.bfloat16


def test_gradients_of_the_second_pass_stay():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    again = SecondPass(model, autocast(), torch.Generator())
    with again([torch.tensor([[0.5]])]):
        model(torch.ones(1, 1)).square().sum().backward()
    assert model.weight.item() == 2.0
    assert model.weight.grad.item() == 5.0  # d w² / dw at 2.5


def test_wrong_number_of_shifts_and_a_nested_context_are_refused():
    model = network()
    again = SecondPass(model, autocast(), torch.Generator())
    with pytest.raises(TrainingError, match="1 shifts for 6 parameters"), again([None]):
        pass
    with again([None] * 6), pytest.raises(TrainingError, match="inside"), again([None] * 6):
        pass


def test_only_methods_with_a_backward_pass_of_their_own_look_twice():
    class Twice(Method):
        def backward(self, model, batch, loss, shifted):
            loss.total.backward()

    assert not looks_twice(Method())
    assert looks_twice(Twice())
