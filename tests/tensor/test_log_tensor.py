import copy
import gc
import io
import math
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils._pytree import tree_leaves

import lognet
from lognet import LogTensor
from lognet.quant.kernels.codes import signs_of
from lognet.quant.log_format import PIECE, largest_magnitude, typical_magnitude
from lognet.quant.random_bits import drawn, key_from_generator
from lognet.tensor import aten
from lognet.tensor.floats import decode

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("shape", [(), (1,), (7,), (33, 5), (0,), (0, 4), (2, 3, 4, 5)])
def test_bytes_held(bits, shape):
    x = randn(*shape)
    w = LogTensor.from_float(x, bits=bits, scale=4.0)
    assert w.nbytes <= (bits + 1) / 8 * x.numel() + 256
    planes = [getattr(w, name).untyped_storage().nbytes() for name in w.__tensor_flatten__()[0]]
    assert w.nbytes == sum(planes)
    assert w.shape == x.shape == w.exponent.shape == w.signs.shape == w.dequantize().shape


@pytest.mark.parametrize("bits", range(2, 17))
def test_every_code_and_sign_survives(bits):
    n = 2**bits
    k = torch.arange(n).repeat(2)
    signs = torch.tensor([1, -1]).repeat_interleave(n)
    w = LogTensor.from_codes(k, signs, bits=bits, scale=1.7)
    assert w.exponent.dtype == torch.int32
    assert w.signs.dtype == torch.int8
    assert torch.equal(w.exponent, k.to(torch.int32))
    assert torch.equal(w.signs, signs.to(torch.int8))
    again = LogTensor.from_float(w.dequantize(), bits=bits, scale=1.7)
    assert torch.equal(again.exponent, w.exponent)
    assert torch.equal(again.signs, w.signs)
    index = torch.randint(0, 2 * n, (3, 50), generator=torch.Generator().manual_seed(0))
    assert torch.equal(w._storage.decode_at(index, torch.float32), w.dequantize()[index])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [2, 4, 8, 10, 12, 16])
def test_relative_error_is_half_a_rung(dtype, bits):
    x = randn(1000, dtype=dtype)
    w = LogTensor.from_float(x, bits=bits)
    assert w.dtype == dtype
    assert float(w.scale) == float(x.abs().max())
    on_ladder = x.double().abs() >= float(w.scale) / w.format.range
    error = (w.dequantize(torch.float64) / x.double())[on_ladder].log().abs().max()
    assert error <= w.base_precision / 2 * (1 + 1e-6) + 1e-7


def test_scale_given_saturates():
    w = LogTensor.from_float(torch.tensor([5.0, -5.0, 1e-9]), bits=8, scale=2.0)
    assert w.exponent.tolist() == [0, 0, 255]
    assert w.dequantize()[:2].tolist() == [2.0, -2.0]
    assert LogTensor.from_float(torch.tensor([1.0]), scale=torch.tensor(2.0)).exponent.item() == 32


def test_zeros_stand_on_the_last_rung_with_a_seeded_sign():
    x = torch.zeros(1000)
    w = LogTensor.from_float(x, scale=1.0)
    assert (w.exponent == 255).all()
    assert 400 < (w.signs == 1).sum() < 600
    assert torch.equal(w.signs, LogTensor.from_float(x, scale=1.0).signs)
    draw = lambda seed: LogTensor.from_float(x, scale=1.0, generator=torch.Generator().manual_seed(seed)).signs
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_stochastic_rounding_draws_from_the_generator():
    x = torch.full((1000,), math.exp(-0.3 * lognet.LogFormat(8).base_precision))
    draw = lambda seed: LogTensor.from_float(
        x, scale=1.0, rounding="stochastic", generator=torch.Generator().manual_seed(seed)
    )
    assert torch.equal(draw(1).exponent, draw(1).exponent)
    assert not torch.equal(draw(1).exponent, draw(2).exponent)
    torch.manual_seed(0)
    assert not torch.equal(
        LogTensor.from_float(x, scale=1.0, rounding="stochastic").exponent,
        LogTensor.from_float(x, scale=1.0, rounding="stochastic").exponent,
    )


@pytest.mark.parametrize(
    ("x", "arguments", "error", "words"),
    [
        ([1.0, math.nan], {}, ValueError, "x must be finite, but 1 of 2"),
        ([math.inf, 1.0], {}, ValueError, "x must be finite"),
        ([0.0, 0.0], {}, ValueError, "x is all zeros.*give scale="),
        ([1.0], {"bits": 1}, ValueError, "bits must be from 2 to 16"),
        ([1.0], {"bits": 8.5}, TypeError, "bits must be an int"),
        ([1.0], {"base_precision": -1.0}, ValueError, "base_precision must be"),
        ([1.0], {"scale": 0.0}, ValueError, "scale must be"),
        ([1.0], {"scale": math.inf}, ValueError, "scale must be"),
        ([1.0], {"scale": torch.ones(2)}, ValueError, "scale must be one number"),
        ([1e-38], {}, ValueError, "normal float32"),
        ([1.0], {"rounding": "up"}, ValueError, "rounding must be one of 'nearest', 'stochastic', got 'up'"),
        ([1], {}, TypeError, "x must have a floating dtype, got torch.int64"),
        ([1j], {}, TypeError, "x must have a floating dtype, got torch.complex64"),
        ([True], {}, TypeError, "floating dtype"),
    ],
)
def test_bad_input(x, arguments, error, words):
    with pytest.raises(error, match=words):
        LogTensor.from_float(torch.tensor(x), **arguments)


def test_not_a_tensor():
    with pytest.raises(TypeError, match="x must be a torch.Tensor, got list"):
        LogTensor.from_float([1.0])


@pytest.mark.parametrize(
    ("k", "signs", "words"),
    [([256], [1], "0 .. 255"), ([-1], [1], "0 .. 255"), ([1], [0], "signs"), ([1, 2], [1], "one shape")],
)
def test_bad_codes(k, signs, words):
    with pytest.raises(ValueError, match=words):
        LogTensor.from_codes(torch.tensor(k), torch.tensor(signs), bits=8, scale=1.0)


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
    w = LogTensor.from_float(randn(6, 10), bits=bits)
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
    w = LogTensor.from_float(randn(6, 10), bits=bits, scale=3.0)
    before = w.exponent.clone(), w.signs.clone()
    new = LogTensor.from_float(randn(3, 4, seed=1), bits=bits, scale=3.0)
    w[1:4, 3:7] = new.dequantize()
    inside = torch.zeros(6, 10, dtype=torch.bool)
    inside[1:4, 3:7] = True
    assert torch.equal(w[1:4, 3:7], new)
    assert torch.equal(w.exponent[~inside], before[0][~inside])
    assert torch.equal(w.signs[~inside], before[1][~inside])
    w.t()[0].fill_(1.5)
    assert torch.equal(w[:, 0], LogTensor.from_float(torch.full((6,), 1.5), bits=bits, scale=3.0))


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_dense_and_right(dtype):
    w = nn.Parameter(LogTensor.from_float(randn(6, 10, dtype=dtype), bits=8))
    dense = w.detach().dequantize().requires_grad_()
    for x in (w, dense):
        ((x * x).sum() + x.t()[2].exp().sum() + x[1:3].prod()).backward()
    assert type(w.grad) is torch.Tensor
    torch.testing.assert_close(w.grad, dense.grad, rtol=1e-6, atol=1e-9)
    w.grad = None
    w.dequantize(torch.float64).sum().backward()
    assert w.grad.dtype == dtype
    assert (w.grad == 1).all()


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


@pytest.mark.parametrize("bits", [2, 8, 10])
def test_copies_of_every_kind(bits):
    w = nn.Parameter(LogTensor.from_float(randn(6, 10), bits=bits))
    buffer = io.BytesIO()
    torch.save(w, buffer)
    for load in (
        lambda: copy.deepcopy(w),
        lambda: pickle.loads(pickle.dumps(w)),
        lambda: torch.load(io.BytesIO(buffer.getvalue()), weights_only=True),
        lambda: torch.load(io.BytesIO(buffer.getvalue()), weights_only=False),
    ):
        other = load()
        assert isinstance(other, LogTensor)
        assert isinstance(other, nn.Parameter)
        assert other.requires_grad
        assert other.format == w.format
        assert torch.equal(other, w)
        assert other.nbytes == w.nbytes
        with torch.no_grad():
            other.zero_()
        assert not torch.equal(other, w)
    assert len(buffer.getvalue()) < 4000 + w.nbytes


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


def test_stale_graphs_are_noticed():
    w = nn.Parameter(LogTensor.from_float(randn(3, 3)))
    y = (w * w).sum()
    w.write_codes_(w.exponent, w.signs)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_mask_is_zero_and_costs_a_bit_a_group():
    x = randn(100, 32)
    w = LogTensor.from_float(x, bits=10)
    bare, before = w.nbytes, w.dequantize()
    rows = torch.arange(100)[:, None] % 10 != 3
    w.set_mask_(rows)
    assert w.nbytes <= bare + 13
    expected = before * rows
    assert torch.equal(w, expected)
    assert torch.equal(w.mask, rows.expand(100, 32))
    assert torch.equal(w.t()[3:7], expected.t()[3:7])
    assert torch.equal(w._storage.decode_at(torch.arange(96, 200), torch.float32), expected.view(-1)[96:200])
    for same in (w.clone(), copy.deepcopy(w), w[2:50].clone(), pickle.loads(pickle.dumps(w))):
        assert torch.equal(same, expected[2:50] if same.shape[0] == 48 else expected)
    w.mul_(0.5)
    assert torch.equal(w[3], torch.zeros(32))
    fine = torch.rand(100, 32, generator=torch.Generator().manual_seed(1)) < 0.5
    w.set_mask_(fine)
    assert torch.equal(w == 0, ~fine)
    w.set_mask_(None)
    assert (w != 0).all()
    with pytest.raises(ValueError, match="mask must be a bool tensor"):
        w.set_mask_(torch.ones(3, 3, dtype=torch.bool))


def test_repr_shows_values_and_ladder():
    text = repr(LogTensor.from_float(torch.tensor([1.0, -0.5]), bits=8))
    assert text == "LogTensor([ 1.0000, -0.5000], bits=8, base_precision=0.02166)"


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


def test_numpy_protocol():
    w = LogTensor.from_float(randn(4, 3))
    assert np.array_equal(np.asarray(w), w.dequantize().numpy())
    assert np.asarray(w, dtype=np.float64).dtype == np.float64


def test_dlpack_gives_the_decoded_values():
    w = LogTensor.from_float(randn(4, 3))
    assert torch.equal(torch.from_dlpack(w), w.dequantize())


@pytest.mark.parametrize("bits", [3, 8, 10])
def test_memory_can_be_shared_between_processes(bits):
    model = lognet.wrap(nn.Linear(4, 3), bits=bits)
    before = model.weight.dequantize()
    assert not model.weight.is_shared()
    model.share_memory()
    assert model.weight.is_shared()
    assert torch.equal(model.weight, before)


def test_from_codes_owns_its_memory():
    k = torch.zeros(100, dtype=torch.uint8)
    w = LogTensor.from_codes(k[:4], torch.ones(4, dtype=torch.int8), bits=8, scale=1.0)
    k.fill_(7)
    assert w.exponent.tolist() == [0, 0, 0, 0]
    assert w.nbytes == 4 + 1 + 4


def test_a_meta_model_is_materialised_and_loaded():
    model = lognet.wrap(nn.Linear(4, 3))
    empty = copy.deepcopy(model).to("meta").to_empty(device="cpu")
    assert torch.isfinite(empty(torch.ones(1, 4))).all()
    empty.load_state_dict(model.state_dict())
    assert torch.equal(empty.weight, model.weight)
    assert empty.weight.scale == model.weight.scale


@pytest.mark.parametrize("mask", [torch.tensor([[True], [False], [True]]), None])
def test_a_graph_from_before_a_change_of_the_mask_is_noticed(mask):
    w = nn.Parameter(LogTensor.from_float(randn(3, 3)).set_mask_(torch.tensor([[False], [True], [True]])))
    y = (w * w).sum()
    w.set_mask_(mask)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize(("bits", "dtype"), [(5, torch.float32), (8, torch.bfloat16), (12, torch.float64)])
def test_encoding_in_pieces_is_encoding_at_once(bits, dtype, rounding):
    """Rungs, signs of zeros and random bits, on both sides of the seam."""
    x = 0.1 * torch.randn(PIECE + 13, dtype=dtype)
    x[::3] = 0
    w = LogTensor.from_float(x, bits, scale=0.3, rounding=rounding, generator=torch.Generator().manual_seed(5))
    key = key_from_generator(torch.Generator().manual_seed(5))
    assert torch.equal(w.exponent, w.format.encode(x.abs(), w.scale, drawn(rounding, len(x), key)))
    assert torch.equal(w.signs < 0, signs_of(x, key))


def test_sizes_are_found_in_pieces():
    x = torch.cat([torch.ones(PIECE), torch.tensor([-7.0, 3.0])])
    assert largest_magnitude(x) == largest_magnitude(LogTensor.from_float(x)) == 7
    assert math.isclose(typical_magnitude(x), math.sqrt((PIECE + 58) / (PIECE + 2)), rel_tol=1e-12)
    assert math.isnan(largest_magnitude(torch.cat([x, torch.tensor([math.nan])])))
    with pytest.raises(ValueError, match="1 of 1048579 are NaN"):
        LogTensor.from_float(torch.cat([x, torch.tensor([math.nan])]))
