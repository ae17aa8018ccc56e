"""Operations below autograd: views change the layout, writes encode, copies move codes, any other decodes."""

import copy
import gc
import math
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils._pytree import tree_leaves

import lognet
from lognet import LogTensor
from lognet.tensor import aten
from lognet.tensor.floats import decode

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


OPERATIONS = {
    "add": lambda w: w + 1,
    "radd": lambda w: 1 + w,
    "mul": lambda w: w * w,
    "norm": lambda w: w.norm(),
    "abs": lambda w: w.abs(),
    "eq": lambda w: w == w.max(),
    "sum": lambda w: w.sum(0),
    "softmax": lambda w: w.softmax(-1),
    "cat": lambda w: torch.cat([w, w]),
    "cat with dense": lambda w: torch.cat([w, torch.ones(1, 10)]),
    "stack": lambda w: torch.stack([w, w]),
    "index": lambda w: w[torch.tensor([0, 2])],
    "mask": lambda w: w[w > 0],
    "where": lambda w: torch.where(w > 0, w, 0),
    "einsum": lambda w: torch.einsum("ij,kj->ik", w, w),
    "sort": lambda w: w.sort().values,
    "zeros_like": lambda w: torch.zeros_like(w),
    "numpy": lambda w: torch.from_numpy(w.detach().numpy()),
    "tolist": lambda w: torch.tensor(w.tolist()),
    "item": lambda w: torch.tensor(w[0, 0].item()),
    "unbind": lambda w: torch.stack(list(w)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_any_other_operation_computes_on_decoded_values(name):
    w = LogTensor.from_float(randn(6, 10), bits=8)
    result, expected = OPERATIONS[name](w), OPERATIONS[name](w.dequantize())
    assert torch.equal(torch.as_tensor(result), expected)
    assert torch.as_tensor(result).dtype == expected.dtype


NESTED = {
    "list of lists": ("Tensor[][]", lambda w: [[w, torch.ones(4)], [w]]),
    "dict": ("Dict(str, Tensor)", lambda w: {"a": w, "b": torch.ones(4)}),
    "tuple": ("(Tensor, Tensor)", lambda w: (w, torch.ones(4))),
}


@pytest.mark.parametrize("name", NESTED)
def test_operations_of_others_get_decoded_tensors_however_deep(name):
    """Aten's have flat lists at most, but a schema may say more."""
    kind, make = NESTED[name]
    w, seen = LogTensor.from_float(randn(4)), []
    library = torch.library.Library("lognet_nested", "FRAGMENT")
    library.define(f"op(Tensor first, {kind} rest) -> Tensor")
    library.impl("op", lambda first, rest: seen.extend(tree_leaves(rest)) or first.clone(), "CompositeExplicitAutograd")
    torch.ops.lognet_nested.op(w, make(w))
    library._destroy()
    assert {type(x) for x in seen} == {torch.Tensor}
    assert torch.equal(seen[0], w.dequantize())


@pytest.mark.parametrize(
    "operation",
    [lambda w: w + 1, lambda w: torch.stack([w, w]), lambda w: w.mul_(0.5)],
    ids=["add", "stack", "mul_"],
)
def test_decoded_weights_are_let_go_with_the_operation(operation, monkeypatch):
    """Not when the garbage is collected: until then large models would hold several of them."""
    w, decoded = LogTensor.from_float(randn(4, 8)), []

    def noted(x):
        values = decode(x)
        decoded.append(weakref.ref(values))
        return values

    monkeypatch.setattr(aten, "decode", noted)
    gc.disable()
    try:
        operation(w)
        assert decoded
        assert not any(values() is not None for values in decoded)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "change", [lambda w: w.t_(), lambda w: w.transpose_(0, 1), lambda w: w.unsqueeze_(0), lambda w: w.resize_(3, 3)]
)
def test_changing_the_shape_in_place_is_refused_and_changes_nothing(change):
    w = LogTensor.from_float(randn(2, 3))
    before = w.dequantize()
    with pytest.raises(NotImplementedError, match="changes the shape of a tensor in place"):
        change(w)
    assert torch.equal(w, before)
    assert w.detach_() is w


@pytest.mark.parametrize(
    ("dtype", "to"), [(torch.float32, torch.int32), (torch.float16, torch.int16), (torch.float16, torch.float32)]
)
def test_bytes_seen_as_another_dtype_are_those_of_the_decoded_values(dtype, to):
    w = LogTensor.from_float(randn(4, 6, dtype=dtype))
    assert torch.equal(w.view(to), w.dequantize().view(to))
    assert torch.equal(w.view(dtype), w.dequantize())


def test_complex_views_are_those_of_the_decoded_values():
    w = LogTensor.from_float(randn(4, 2))
    assert torch.equal(torch.view_as_complex(w), torch.view_as_complex(w.dequantize()))


def test_in_place_writes_encode_on_the_same_ladder():
    w = nn.Parameter(LogTensor.from_float(randn(50, 20), bits=8, scale=8.0))
    format, planes = w.format, [getattr(w, n) for n in w.__tensor_flatten__()[0]]
    for write in (
        lambda: nn.init.normal_(w, std=0.5),
        lambda: nn.init.uniform_(w, -1, 1),
        lambda: nn.init.kaiming_uniform_(w),
        lambda: nn.init.ones_(w),
        lambda: w.data.mul_(0.5),
        lambda: w.detach().add_(0.25),
    ):
        write()
        assert w.format == format
        assert float(w.scale) == 8.0
        assert all(getattr(w, n) is p for n, p in zip(w.__tensor_flatten__()[0], planes, strict=True))
    torch.manual_seed(0)
    nn.init.normal_(w)
    torch.manual_seed(0)
    expected = LogTensor.from_float(nn.init.normal_(torch.empty(50, 20)), bits=8, scale=8.0)
    assert torch.equal(w, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_writes_in_half_precision_leave_the_codes_of_other_weights(dtype):
    w = LogTensor.from_float(randn(64, 4), bits=12).to(dtype)
    before = w.exponent
    w[torch.tensor([0])] = 0.5
    w[1].fill_(0.25)
    w.mul_(1)
    assert torch.equal(w.exponent[2:], before[2:])
    assert (w[:2].dequantize() - torch.tensor([[0.5], [0.25]])).abs().max() < 0.002
    w.set_mask_(torch.arange(64)[:, None] != 5)
    w[0].zero_()
    w.set_mask_(None)
    assert torch.equal(w.exponent[2:], before[2:])  # codes under a mask wait there
    w.copy_(torch.ones(64, 4, dtype=torch.int64))
    assert (w.dequantize() - 1).abs().max() < 0.01


def test_writes_beyond_the_scale_warn_and_nan_is_refused():
    w = LogTensor.from_float(torch.ones(4), scale=1.0)
    with pytest.warns(UserWarning, match="2 of 4 values exceed scale=1 and saturate"):
        w.copy_(torch.tensor([2.0, 0.5, -3.0, 1.0]))
    assert torch.equal(w, torch.tensor([1.0, 0.5, -1.0, 1.0]))
    with pytest.raises(ValueError, match="must be finite, but 1 of 4"):
        w.copy_(torch.tensor([math.nan, 0, 0, 0]))
    assert torch.equal(w, torch.tensor([1.0, 0.5, -1.0, 1.0]))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=False),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
        lambda p: torch.optim.Adam(p, lr=0.1, foreach=False),
        lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True),
        lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
        lambda p: torch.optim.RMSprop(p, lr=0.1),
    ],
)
def test_other_optimizers_write_back(make):
    target = randn(4, 3, seed=5)
    w = nn.Parameter(LogTensor.from_float(randn(4, 3), bits=12, scale=16.0))
    optimizer = make([w])
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = ((w - target) ** 2).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    assert isinstance(w, LogTensor)


def test_vectors_of_parameters():
    params = [nn.Parameter(LogTensor.from_float(randn(4, 3, seed=s), scale=4.0)) for s in (0, 1)]
    vector = parameters_to_vector(params)
    assert torch.equal(vector, torch.cat([p.detach().dequantize().view(-1) for p in params]))
    total = nn.utils.clip_grad_norm_(params, 1.0) if all(p.grad is not None for p in params) else None
    assert total is None
    for p in params:
        (p * 3).sum().backward()
    assert nn.utils.clip_grad_norm_(params, 1.0) == pytest.approx(3 * 24**0.5)
    flipped = LogTensor.from_float(-vector.detach(), scale=4.0).dequantize()
    with torch.no_grad():
        for p, part in zip(params, flipped.split(12), strict=True):
            p.copy_(part.view(4, 3))
    assert torch.equal(parameters_to_vector(params), flipped)
    vector_to_parameters(vector.detach(), params)  # replaces .data
    assert torch.equal(parameters_to_vector(params), vector)


def test_copies_between_log_tensors_are_exact_or_refused():
    a, b = (LogTensor.from_float(randn(5, 5, seed=s), bits=10) for s in (0, 1))
    a.copy_(b)
    assert torch.equal(a.exponent, b.exponent)
    assert a.scale == b.scale
    with pytest.raises(ValueError, match="bits=8.*into one of bits=10.*requantize"):
        a.copy_(LogTensor.from_float(randn(5, 5), bits=8))
    dense = torch.empty(5, 5)
    dense.copy_(b)
    assert torch.equal(dense, b)


def test_moves_and_casts_never_change_codes():
    w = nn.Parameter(LogTensor.from_float(randn(6, 10), bits=12))
    for dtype in DTYPES:
        cast = w.to(dtype)
        assert isinstance(cast, LogTensor)
        assert cast.dtype == cast.dequantize().dtype == dtype
        assert torch.equal(cast.exponent, w.exponent)
    assert torch.equal(w.half().float(), w)
    assert w.to(torch.int32).dtype == torch.int32
    meta = w.to("meta")
    assert isinstance(meta, LogTensor)
    assert meta.device.type == "meta"
    model = nn.LSTM(3, 4)
    lognet.wrap(model)
    before = model.weight_hh_l0.exponent
    model.double()
    assert model.weight_hh_l0.dtype == torch.float64
    assert torch.equal(model.weight_hh_l0.exponent, before)
    assert model(torch.randn(2, 3).double())[0].dtype == torch.float64


def test_a_meta_model_is_materialised_and_loaded():
    model = lognet.wrap(nn.Linear(4, 3))
    empty = copy.deepcopy(model).to("meta").to_empty(device="cpu")
    assert torch.isfinite(empty(torch.ones(1, 4))).all()
    empty.load_state_dict(model.state_dict())
    assert torch.equal(empty.weight, model.weight)
    assert empty.weight.scale == model.weight.scale


@pytest.mark.parametrize(
    ("name", "writes"),
    [
        ("xavier_normal_", 1),
        ("kaiming_normal_", 1),
        ("zeros_", 1),
        ("eye_", 1),
        ("orthogonal_", 2),
        ("trunc_normal_", 5),
    ],
)
def test_initialisers_write_in_place(name, writes):
    w = nn.Parameter(LogTensor.from_float(torch.randn(6, 6), scale=4.0))
    torch.manual_seed(1)
    getattr(nn.init, name)(w)
    torch.manual_seed(1)
    expected = getattr(nn.init, name)(torch.empty(6, 6))
    lowest = 4.0 / w.format.range
    error = (w.detach() - expected).abs() - writes * expected.abs() * (w.base_precision / 2 + 1e-5)
    assert (error <= writes * lowest * 1.001).all()
    assert float(w.scale) == 4.0
