"""Arguments, parameters and gradients that Madam refuses, before anything changes."""

import math

import pytest
import torch
from torch import nn

from lognet import LogTensor
from lognet.optim import Madam


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lr": -1.0}, "lr must be at least 0 and finite, got -1.0"),
        ({"lr": math.nan}, "lr must be"),
        ({"lr": torch.tensor([0.1, 0.2])}, "Tensor lr must be 1-element"),
        ({"p_scale": 0}, "p_scale must be positive"),
        ({"g_bound": -1}, "g_bound must be positive"),
        ({"beta": 1.0}, r"beta must be in \[0, 1\), got 1.0"),
        ({"momentum": -0.1}, "momentum must be in"),
        ({"rounding": "down"}, "rounding must be one of"),
        ({"affine": 1.5}, r"affine must be in \[0, 1\], got 1.5"),
        ({"state_bits": 7}, "state_bits must be one of 32, 16, 8, 4, got 7"),
        ({"weight_decay": 0.01}, "no weight_decay.*sigma"),
    ],
)
def test_bad_arguments(arguments, words):
    w = nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match=words):
        Madam([w], **arguments)
    optimizer = Madam([nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match=words):
        optimizer.add_param_group({"params": [w], **arguments})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", "fast"),
        ("p_scale", None),
        ("g_bound", "x"),
        ("beta", None),
        ("momentum", [0.9]),
        ("state_bits", None),
        ("bias_correction", "no"),
        ("sign_crossing", None),
        ("maximize", "yes"),
        ("foreach", "no"),
    ],
)
def test_arguments_of_the_wrong_type_are_named(name, value):
    with pytest.raises(TypeError, match=f"{name} must be"):
        Madam([nn.Parameter(torch.ones(1))], **{name: value})


def test_only_real_floating_parameters():
    with pytest.raises(TypeError, match="real floating-point parameters only, got one of torch.complex64"):
        Madam([nn.Parameter(torch.ones(2, dtype=torch.complex64))])


def test_parameters_that_could_not_be_stepped_are_refused():
    whole = LogTensor.from_float(torch.randn(4, 4))
    with pytest.raises(ValueError, match=r"whole LogTensors only, got a view of shape \(2, 4\)"):
        Madam([nn.Parameter(whole[1:3])])
    Madam([nn.Parameter(whole[1:3].clone())])
    with pytest.raises(TypeError, match="param_group must be a dict, but got <class 'list'>"):
        Madam([nn.Parameter(torch.ones(1))]).add_param_group([nn.Parameter(torch.ones(1))])
    with pytest.raises(TypeError, match="must be an ordered collection, got a set"):
        Madam([{"params": {nn.Parameter(torch.ones(1))}}])


def test_sparse_gradients_are_refused_before_anything_moves():
    other, table = nn.Parameter(torch.ones(3)), nn.Embedding(5, 2, sparse=True)
    optimizer = Madam([other, *table.parameters()])
    (table(torch.tensor([1])).sum() + other.sum()).backward()
    with pytest.raises(RuntimeError, match="does not support sparse gradients; use sparse=False"):
        optimizer.step()
    assert torch.equal(other, torch.ones(3))
