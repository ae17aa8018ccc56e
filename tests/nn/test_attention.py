"""Every attention layer gives torch.nn.MultiheadAttention's answer to every kind of call: its numbers, or an error."""

import itertools

import pytest
import torch
from oracles.attention import dense_twin
from oracles.same import assert_same_answer
from torch import nn

from lognet.nn import AlgebraMultiheadAttention, KroneckerMultiheadAttention, PHMMultiheadAttention

FAMILIES = {
    "R": lambda **k: AlgebraMultiheadAttention(8, 2, algebra="R", **k),
    "H": lambda **k: AlgebraMultiheadAttention(8, 2, algebra="H", **k),
    "D2": lambda **k: AlgebraMultiheadAttention(8, 2, algebra="D2", **k),
    "phm, n = 1": lambda **k: PHMMultiheadAttention(8, 2, 1, **k),
    "phm": lambda **k: PHMMultiheadAttention(8, 2, 4, **k),
    "phm, fused": lambda **k: PHMMultiheadAttention(8, 2, 4, fused=True, **k),
    "M2R, 10 bits": lambda **k: AlgebraMultiheadAttention(8, 2, algebra="M2R", bits=10, **k),
    "phm, 10 bits": lambda **k: PHMMultiheadAttention(8, 2, 4, bits=10, **k),
    "kronecker": lambda **k: KroneckerMultiheadAttention(8, 2, 3, **k),
}
OPTIONS = {
    "plain": {},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "other widths": {"kdim": 12, "vdim": 4},
    "added keys": {"add_bias_kv": True, "add_zero_attn": True},
    "learned key": {"add_bias_kv": True, "batch_first": True},
}


def make(family, option):
    if family == "phm, fused" and option == "other widths":
        pytest.skip("fused projections have one width")
    return FAMILIES[family](**OPTIONS[option], dtype=torch.float64)


def torch_twin(ours):
    """torch's attention with the dense weights of ours, still connected to our parameters."""
    twin, weights = dense_twin(ours)
    return lambda *args, **kwargs: torch.func.functional_call(twin, weights(), args, kwargs)


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64)


def inputs(ours, length, keys, batch):
    """Query, key and value; `batch` None is unbatched."""
    sides = lambda n: (n,) if batch is None else (batch, n) if ours.batch_first else (n, batch)
    return tuple(
        randn(*sides(n), w).requires_grad_()
        for n, w in ((length, ours.embed_dim), (keys, ours.kdim), (keys, ours.vdim))
    )


ATTENTION_MASKS = {
    "none": lambda length, keys, batch: None,
    "bool": lambda length, keys, batch: torch.ones(length, keys, dtype=torch.bool).triu(2),
    "numbers": lambda length, keys, batch: randn(length, keys),
    "bool of each head": lambda length, keys, batch: torch.rand(2 * (batch or 1), length, keys) > 0.9,
    "numbers of each head": lambda length, keys, batch: randn(2 * (batch or 1), length, keys),
    "integers": lambda length, keys, batch: torch.zeros(length, keys, dtype=torch.long),
    "wrong length": lambda length, keys, batch: torch.zeros(length + 1, keys),
    "wrong keys": lambda length, keys, batch: torch.zeros(length, keys + 1),
    "one head": lambda length, keys, batch: torch.zeros(1, length, keys),
    "one dimension": lambda length, keys, batch: torch.zeros(keys),
    "four dimensions": lambda length, keys, batch: torch.zeros(batch or 1, 2, length, keys),
}
PADDING_MASKS = {
    "none": lambda keys, batch: None,
    "bool": lambda keys, batch: torch.arange(keys).expand(*(() if batch is None else (batch,)), keys) >= 4,
    "numbers": lambda keys, batch: randn(*(() if batch is None else (batch,)), keys),
    "integers": lambda keys, batch: torch.zeros(*(() if batch is None else (batch,)), keys, dtype=torch.long),
    "wrong keys": lambda keys, batch: torch.zeros(*(() if batch is None else (batch,)), keys + 1, dtype=torch.bool),
    "wrong dimensions": lambda keys, batch: torch.zeros(*((1,) if batch is None else ()), keys, dtype=torch.bool),
}
SIZES = {
    "batched": (5, 6, 3),
    "unbatched": (5, 6, None),
    "one sequence": (5, 6, 1),
    "no query": (0, 6, 3),
    "no keys": (5, 0, 3),
    "no keys, unbatched": (5, 0, None),
    "no batch": (5, 6, 0),
}


def outcome(call, ours, args, kwargs):
    """Output, weights and the gradients of parameters and inputs; or the error."""
    try:
        out, weights = call(*args, **kwargs)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        return error
    grads = torch.autograd.grad(
        out.square().sum(), [*ours.parameters(), *args], allow_unused=True, materialize_grads=True
    )
    return [out, weights, *grads]


def compare(ours, args, kwargs, where):
    mine = outcome(ours, ours, args, kwargs)
    real = outcome(torch_twin(ours), ours, args, kwargs)
    if isinstance(real, RuntimeError) and "ambiguous" in str(real):  # torch's reshape of nothing, without weights only
        out, _, *grads = outcome(torch_twin(ours), ours, args, {**kwargs, "need_weights": True})
        real = [out, None, *grads]
    assert_same_answer(mine, real, where, 1e-10, equal_nan=True)


@pytest.mark.filterwarnings("ignore:Support for mismatched")  # torch's, of masks of two kinds
@pytest.mark.parametrize(
    ("option", "size"),
    [("plain", size) for size in SIZES]
    + [(option, size) for option in OPTIONS for size in ("batched", "unbatched", "no keys") if option != "plain"],
)
@pytest.mark.parametrize("family", ["R", "phm", "M2R, 10 bits"])
def test_every_mask(family, option, size):
    torch.manual_seed(0)
    ours = make(family, option)
    length, keys, batch = SIZES[size]
    args = inputs(ours, length, keys, batch)
    for (a, attention), (p, padding), need in itertools.product(
        ATTENTION_MASKS.items(), PADDING_MASKS.items(), (True, False)
    ):
        masks = {"attn_mask": attention(length, keys, batch), "key_padding_mask": padding(keys, batch)}
        compare(ours, args, {**masks, "need_weights": need}, f"attn_mask {a}, key_padding_mask {p}, {need}")


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_causal_hint_and_weights_of_heads(family, option):
    torch.manual_seed(0)
    ours = make(family, option)
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    for batch, need, average in itertools.product((3, None), (True, False), (True, False)):
        args = inputs(ours, 5, 5, batch)
        padding = torch.arange(5).expand(*(() if batch is None else (batch,)), 5) >= 4
        for masks in (
            {"attn_mask": causal, "is_causal": True},
            {"attn_mask": randn(5, 5), "is_causal": True},  # a hint that is wrong
            {"attn_mask": causal, "is_causal": True, "key_padding_mask": padding},
            {"is_causal": True},
            {"is_causal": True, "key_padding_mask": padding},
            {"attn_mask": causal},
        ):
            if ours.bias_k is not None and masks.get("is_causal") and not need and "key_padding_mask" not in masks:
                continue  # torch then masks the learned key too; see the next test
            options = {"need_weights": need, "average_attn_weights": average}
            compare(ours, args, {**masks, **options}, f"{masks}, {options}")


@pytest.mark.parametrize("family", FAMILIES)
def test_causal_hint_never_hides_added_keys(family):
    ours = FAMILIES[family](add_bias_kv=True, dtype=torch.float64)
    x = randn(5, 3, 8)
    mask = {"attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1)}
    with_hint, without = (ours(x, x, x, need_weights=False, is_causal=hint, **mask)[0] for hint in (True, False))
    torch.testing.assert_close(with_hint, without)
    torch.testing.assert_close(without, ours(x, x, x, **mask)[0])


WRONG = {
    "one dimension": lambda q, k, v: (q[0, 0], k[0, 0], v[0, 0]),
    "four dimensions": lambda q, k, v: (q[None], k[None], v[None]),
    "an unbatched key": lambda q, k, v: (q, k[:, 0], v),
    "an unbatched query": lambda q, k, v: (q[:, 0], k, v),
    "key and value of two lengths": lambda q, k, v: (q, k, v[:-1]),
    "key and value of two batches": lambda q, k, v: (q, k, v[:, :-1]),
    "query of another batch": lambda q, k, v: (q[:, :-1], k, v),
    "query of another width": lambda q, k, v: (q[..., :-1], k, v),
    "key of another width": lambda q, k, v: (q, k[..., :-1], v),
    "value of another width": lambda q, k, v: (q, k, v[..., :-1]),
    "query of another dtype": lambda q, k, v: (q.float(), k, v),
    "value of another dtype": lambda q, k, v: (q, k, v.float()),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_that_torch_refuses(family, wrong):
    ours = FAMILIES[family](dtype=torch.float64)
    args = WRONG[wrong](*inputs(ours, 5, 6, 3))
    assert isinstance(outcome(torch_twin(ours), ours, args, {}), Exception)
    compare(ours, args, {}, wrong)


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_of_weights(family):
    ours = FAMILIES[family](dropout=0.5, dtype=torch.float64)
    x = randn(5, 3, 8)
    results = []
    for call in (ours, torch_twin(ours)):
        torch.manual_seed(1)
        results.append(call(x, x, x, average_attn_weights=False))
    assert bool((results[0][1] == 0).any())
    torch.testing.assert_close(*results)
    ours.eval()
    assert torch.equal(ours(x, x, x)[0], ours(x, x, x, need_weights=True)[0])
    assert bool((ours(x, x, x)[1] > 0).all())


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_in_torch_s_transformer_layers(family, training, norm_first):
    layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, norm_first=norm_first, batch_first=True, dtype=torch.float64)
    twin = nn.TransformerEncoderLayer(8, 2, 12, 0.0, norm_first=norm_first, batch_first=True, dtype=torch.float64)
    layer.self_attn = FAMILIES[family](batch_first=True, dtype=torch.float64)
    twin.load_state_dict({n: p for n, p in layer.state_dict().items() if "self_attn" not in n}, strict=False)
    twin.self_attn.forward = torch_twin(layer.self_attn)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    for module in (layer, twin):
        module.train(training)
    x = randn(2, 5, 8)
    torch.testing.assert_close(
        layer(x, src_key_padding_mask=padding)[~padding], twin(x, src_key_padding_mask=padding)[~padding]
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m(x, x, x, is_causal=True), "is_causal=True needs attn_mask, .*generate_square_subsequent_mask"),
        (lambda m, x: m(x, x[0], x[0]), r"must all have 2 \(unbatched\) or 3 dimensions, got shapes \(5, 3, 8\), \(3, 8\)"),
        (lambda m, x: m(x, x, x[:4]), "key and value must have one length, and query, key and value one batch size"),
        (lambda m, x: m(x, x[..., :4], x), r"key must have kdim=8 last, got shape \(5, 3, 4\)"),
        (lambda m, x: m(x, x, x, attn_mask=torch.ones(2, 3)), r"attn_mask must be \(5, 5\) or \(6, 5, 5\), got \(2, 3\)"),
        (lambda m, x: m(x, x, x, torch.ones(3, 2)), r"key_padding_mask must be \(3, 5\), got \(3, 2\)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("family", FAMILIES)
def test_errors_name_what_is_wrong(family, call, message):
    with pytest.raises(ValueError, match=message):
        call(FAMILIES[family](), torch.ones(5, 3, 8))


@pytest.mark.parametrize("family", FAMILIES)
def test_type_errors_and_arguments(family):
    x = torch.ones(5, 3, 8)
    with pytest.raises(TypeError, match=r"attn_mask must be bool or floating, got torch.int64"):
        FAMILIES[family]()(x, x, x, attn_mask=torch.zeros(5, 5, dtype=torch.long))
    with pytest.raises(TypeError, match="value is torch.float64 but the parameters are torch.float32"):
        FAMILIES[family]()(x, x, x.double())
    with pytest.raises(ValueError, match="dropout must be a probability"):
        FAMILIES[family](dropout=1.5)
    text = repr(FAMILIES[family](dropout=0.5, batch_first=True, add_bias_kv=True, add_zero_attn=True))
    assert "8, num_heads=2, add_bias_kv=True, dropout=0.5, add_zero_attn=True, batch_first=True" in text
