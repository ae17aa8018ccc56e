"""Views: they cost nothing, agree with dense ones, and write through."""

import pytest
import torch

from lognet import LogTensor

VIEWS = {
    "t": lambda x: x.t(),
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "row": lambda x: x[3],
    "element": lambda x: x[3, 2],
    "slice": lambda x: x[1:5, 2:],
    "stride": lambda x: x[::2, ::3],
    "view": lambda x: x.view(-1),
    "reshape": lambda x: x.reshape(10, 6),
    "unsqueeze": lambda x: x[None],
    "expand": lambda x: x[0].expand(4, 10),
    "diagonal": lambda x: x.diagonal(),
    "chunk": lambda x: x.chunk(2)[1],
    "flatten": lambda x: x.flatten(),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("bits", [3, 8, 10])
def test_views_are_free_and_agree_with_dense(name, bits):
    w = LogTensor.from_float(torch.randn(6, 10), bits=bits)
    view, dense = VIEWS[name](w), VIEWS[name](w.dequantize())
    assert isinstance(view, LogTensor)
    assert view._storage is w._storage
    assert torch.equal(view.dequantize(), dense)
    assert torch.equal(view.exponent, VIEWS[name](w.exponent))
    assert torch.equal(view + 1, dense + 1)
    owned = view.clone()
    assert owned._storage is not w._storage
    assert torch.equal(owned, dense)


@pytest.mark.parametrize("bits", [3, 8, 12])
def test_writing_through_a_view_leaves_the_rest_alone(bits):
    w = LogTensor.from_float(torch.randn(6, 10), bits=bits, scale=3.0)
    before = w.exponent.clone(), w.signs.clone()
    new = LogTensor.from_float(torch.randn(3, 4), bits=bits, scale=3.0)
    w[1:4, 3:7] = new.dequantize()
    inside = torch.zeros(6, 10, dtype=torch.bool)
    inside[1:4, 3:7] = True
    assert torch.equal(w[1:4, 3:7], new)
    assert torch.equal(w.exponent[~inside], before[0][~inside])
    assert torch.equal(w.signs[~inside], before[1][~inside])
    w.t()[0].fill_(1.5)
    assert torch.equal(w[:, 0], LogTensor.from_float(torch.full((6,), 1.5), bits=bits, scale=3.0))
