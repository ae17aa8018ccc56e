"""Forms of weights: expanded, collapsed, and cached for several products."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lognet import LogTensor
from lognet.tensor.floats import CachedForm, expand_floats, expanded
from lognet.tensor.functional import linear


class Doubled:
    """A weight (out, in) stands for the matrix (out, 2 in) that has it twice."""

    def __init__(self):
        self.made = []

    def expand(self, weight):
        matrix = torch.cat([weight, weight], 1)
        self.made.append(weakref.ref(matrix))
        return matrix

    def collapse(self, grad, shape):
        return sum(grad.chunk(2, 1))


def weight():
    return nn.Parameter(LogTensor.from_float(torch.randn(4, 3, generator=torch.Generator().manual_seed(0))))


def test_a_cached_form_computes_the_matrix_once_for_all_steps_of_a_pass_and_frees_it():
    w, form = weight(), Doubled()
    cached = CachedForm(form, 3)
    x = [torch.randn(2, 6, requires_grad=True) for _ in range(3)]
    y = [linear(of, w, None, cached) for of in x]
    assert len(form.made) == 1
    assert form.made[0]() is None
    sum(of.sum() for of in y).backward()
    assert len(form.made) == 2
    assert form.made[1]() is None
    dense = w.detach().dequantize().requires_grad_()
    others = [of.detach().requires_grad_() for of in x]
    sum(F.linear(of, torch.cat([dense, dense], 1)).sum() for of in others).backward()
    torch.testing.assert_close(w.grad, dense.grad)
    torch.testing.assert_close([of.grad for of in x], [of.grad for of in others])


def test_without_a_cache_every_step_computes_it():
    w, form = weight(), Doubled()
    sum(linear(torch.ones(2, 6), w, None, form).sum() for _ in range(3)).backward()
    assert len(form.made) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_floats_are_expanded_once_and_for_all(dtype):
    form, dense = Doubled(), torch.randn(4, 3, dtype=dtype, requires_grad=True)
    matrix, left = expand_floats(dense, form)
    assert left is None
    assert torch.equal(matrix, expanded(dense, form))
    assert torch.autograd.gradcheck(lambda t: expand_floats(t, form)[0], dense.detach().double().requires_grad_())
    log = weight()
    kept, left = expand_floats(log, form)
    assert (kept is log, left is form) == (True, True)
    assert torch.equal(expanded(log, None), log.dequantize())
