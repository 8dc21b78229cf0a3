import numpy as np
import torch

from fer_bench import constant, to_device

CPU = torch.device("cpu")


def test_a_constant_is_float32_of_the_given_values_and_shape():
    table = constant(np.array([[0.1, 2.0], [3.0, 4.0]]), CPU)
    assert table.dtype == torch.float32
    assert table.tolist() == [[np.float32(0.1), 2.0], [3.0, 4.0]]
    assert constant(np.array([3, 5]), CPU).tolist() == [3.0, 5.0]


def test_changing_a_constant_in_place_changes_no_other():
    values = np.array([1.0, 2.0])
    constant(values, CPU).zero_()
    assert constant(values, CPU).tolist() == [1.0, 2.0]


def test_arrays_that_change_give_their_new_values():
    values = np.array([1.0, 2.0])
    constant(values, CPU)
    values[0] = 7.0
    assert constant(values, CPU).tolist() == [7.0, 2.0]


def test_a_constant_first_read_in_evaluation_takes_part_in_training():
    values = np.array([1.5, 2.5])
    with torch.inference_mode():
        constant(values, CPU)
    weight = torch.ones(2, requires_grad=True)
    (weight * constant(values, CPU)).sum().backward()
    assert weight.grad.tolist() == [1.5, 2.5]


def test_what_lies_on_the_device_is_not_copied():
    drawn = torch.randperm(5)
    assert to_device(drawn, CPU) is drawn
