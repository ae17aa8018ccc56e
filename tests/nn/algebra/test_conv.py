"""Convolutions over algebras against torch's with the dense expansion."""

import copy

import pytest
import torch
from oracles import algebra as oracle
from oracles.graph import saved_bytes

import lognet
from lognet import LogTensor, nn
from lognet.nn import algebra_conv, from_columns, to_columns

CONV = {
    1: (nn.AlgebraConv1d, torch.nn.Conv1d),
    2: (nn.AlgebraConv2d, torch.nn.Conv2d),
    3: (nn.AlgebraConv3d, torch.nn.Conv3d),
}
TRANSPOSED = {
    1: (nn.AlgebraConvTranspose1d, torch.nn.ConvTranspose1d),
    2: (nn.AlgebraConvTranspose2d, torch.nn.ConvTranspose2d),
    3: (nn.AlgebraConvTranspose3d, torch.nn.ConvTranspose3d),
}
# name: (transposed, dimensions, tuples in, tuples out, arguments)
CASES = {
    "1d": (False, 1, 2, 3, {"kernel_size": 3, "padding": 1}),
    "2d": (False, 2, 2, 3, {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}),
    "2d same, dilated": (False, 2, 2, 1, {"kernel_size": 3, "padding": "same", "dilation": 2}),
    "2d valid": (False, 2, 1, 2, {"kernel_size": 2, "padding": "valid", "bias": False}),
    "2d grouped": (False, 2, 4, 2, {"kernel_size": 3, "groups": 2, "padding": 1}),
    "2d depthwise": (False, 2, 3, 3, {"kernel_size": 3, "groups": 3, "stride": 2}),
    "2d depthwise, multiplied": (False, 2, 2, 4, {"kernel_size": 3, "groups": 2, "bias": False}),
    "2d reflected": (False, 2, 2, 2, {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}),
    "2d circular, same": (False, 2, 2, 2, {"kernel_size": (3, 2), "padding": "same", "padding_mode": "circular"}),
    "3d": (False, 3, 1, 2, {"kernel_size": 2, "stride": 2}),
    "transposed 1d": (True, 1, 2, 3, {"kernel_size": 3, "stride": 2, "output_padding": 1}),
    "transposed 2d": (True, 2, 2, 3, {"kernel_size": (3, 2), "stride": 2, "padding": (1, 0), "dilation": 1}),
    "transposed 2d grouped": (True, 2, 4, 2, {"kernel_size": 2, "groups": 2}),
    "transposed 3d": (True, 3, 2, 1, {"kernel_size": 2, "bias": False}),
}


def dense_kernel(layer):
    """As torch's layer holds it, by the oracle; tensor in, tensor out, so gradients flow."""
    name, weight = layer.algebra.name, layer.weight
    weight = weight.dequantize() if isinstance(weight, LogTensor) else weight
    if not layer.transposed:
        return oracle.dense(name, weight)
    return torch.cat([oracle.dense(name, w.transpose(0, 1)).transpose(0, 1) for w in weight.chunk(layer.groups)])


def pair(case, name, bits=None, dtype=torch.float64, **options):
    """Our layer, and torch's with the dense expansion of the same weight."""
    transposed, over, inputs, outputs, arguments = CASES[case]
    ours, theirs = (TRANSPOSED if transposed else CONV)[over]
    a = oracle.SIZES[name]
    layer = ours(inputs * a, outputs * a, **arguments, algebra=name, dtype=dtype, bits=bits, **options)
    twin = theirs(inputs * a, outputs * a, **arguments, dtype=dtype)
    with torch.no_grad():
        if layer.bias is not None:
            layer.bias.copy_(torch.randn(outputs * a).clamp(-0.3, 0.3) if bits else torch.randn(outputs * a))
            twin.bias.copy_(layer.bias)
        twin.weight.copy_(dense_kernel(layer))
    return layer, twin, torch.randn(2, inputs * a, *(7, 6, 5)[-over:], dtype=dtype)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("bits", [None, 10], ids=["float", "log"])
@pytest.mark.parametrize("name", ["C", "H", "M2R", "M3R", "M2C", "D4"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_dense_real_layer(case, name, bits):
    layer, twin, x = pair(case, name, bits)
    xs = x.clone().requires_grad_(), x.clone().requires_grad_()
    result, expected = layer(xs[0]), twin(xs[1])
    torch.testing.assert_close(result, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(layer(x[0]), expected[0], rtol=1e-11, atol=1e-11)  # unbatched
    cotangent = torch.randn_like(expected)
    result.backward(cotangent)
    expected.backward(cotangent)
    torch.testing.assert_close(xs[0].grad, xs[1].grad, rtol=1e-11, atol=1e-11)
    if layer.bias is not None:
        torch.testing.assert_close(layer.bias.grad, twin.bias.grad, rtol=1e-11, atol=1e-11)
    w = layer.weight.detach().dequantize() if bits else layer.weight.detach()
    w.requires_grad_()
    stand_in = copy.copy(layer)
    stand_in._parameters = {"weight": torch.nn.Parameter(w), "bias": layer.bias}
    (folded,) = torch.autograd.grad(dense_kernel(stand_in), stand_in.weight, twin.weight.grad)
    torch.testing.assert_close(layer.weight.grad, folded, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(layer.dense_weight(), twin.weight, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["H", "M2R", "M2C", "D3"])
@pytest.mark.parametrize("case", ["1d", "2d grouped", "2d depthwise", "transposed 2d grouped"])
def test_gradcheck(case, name):
    layer, _, x = pair(case, name)
    x = x[:1, ..., :3].clone().requires_grad_()
    call = lambda x, w, b: torch.func.functional_call(layer, {"weight": w, "bias": b}, x)
    assert torch.autograd.gradcheck(call, (x, layer.weight, layer.bias), fast_mode=True)
    log, _, _ = pair(case, name, 8)
    assert torch.autograd.gradcheck(log, (x,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ["C", "M2R", "D4"])
@pytest.mark.parametrize("case", ["2d", "transposed 2d"])
def test_other_dtypes(case, name, dtype):
    layer, twin, x = pair(case, name, dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    out = layer(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out, twin(x), rtol=tolerance, atol=tolerance)
    out.sum().backward()
    assert layer.weight.grad.dtype == dtype


@pytest.mark.parametrize("name", ["H", "M2R", "M4R", "M2C", "D4"])
@pytest.mark.parametrize("case", ["2d", "2d depthwise", "transposed 2d grouped"])
def test_columns_layout(case, name):
    layer, _, x = pair(case, name)
    flat, _, _ = pair(case, name, layout="columns")
    flat.load_state_dict(layer.state_dict())
    ours = from_columns(flat(to_columns(x, name, 1)), name, 1)
    torch.testing.assert_close(ours, layer(x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["C", "M2R", "D4"])
@pytest.mark.parametrize("bits", [None, 8])
def test_channels_last_and_autocast(name, bits):
    layer, twin, x = pair("2d", name, bits, dtype=torch.float32)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), twin(x), rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["H", "M2R", "D4"])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_graph_keeps_codes_and_never_a_decoded_weight(name, transposed):
    make = nn.AlgebraConvTranspose2d if transposed else nn.AlgebraConv2d
    layer = make(160, 160, 5, algebra=name, bits=8)
    x = torch.randn(1, 160, *((1, 1) if transposed else (5, 5)))
    kept, total = saved_bytes(lambda: layer(x).sum())
    assert kept < layer.weight.numel() * 4 / 2
    total.backward()
    assert type(layer.weight.grad) is torch.Tensor


def test_output_size():
    layer = nn.AlgebraConvTranspose2d(4, 4, 3, stride=2, algebra="H")
    x = torch.randn(1, 4, 5, 5)
    assert layer(x, output_size=(12, 11)).shape == (1, 4, 12, 11)
    with pytest.raises(ValueError, match=r"output_size\[0\]=13 must lie between 11 and 12"):
        layer(x, output_size=(13, 11))


def test_layer_is_a_module_like_torchs():
    layer = nn.AlgebraConv2d(8, 12, 3, stride=2, padding=1, algebra="M2R", bits=8, bias=False)
    shown = "AlgebraConv2d(8, 12, algebra=M2R, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False, bits=8)"
    assert repr(layer) == shown
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(copy.deepcopy(layer)(x), layer(x))
    twin = lognet.unwrap(copy.deepcopy(layer))
    torch.testing.assert_close(twin(x), layer(x))
    before = layer.weight.clone().dequantize()
    layer.reset_parameters()
    assert isinstance(layer.weight, LogTensor)
    assert (layer.weight.dequantize() != before).float().mean() > 0.9


@pytest.mark.parametrize("name", ["H", "M3R"])
def test_each_component_is_glorot_initialised(name):
    a = oracle.SIZES[name]
    w = nn.AlgebraConv2d(20 * a, 30 * a, 3, algebra=name).weight.detach()
    bound = (6 / 450) ** 0.5
    assert float(w.abs().max()) <= bound
    for component in w.unbind(-1):
        assert float(component.std()) == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.AlgebraConv2d(6, 8, 3, algebra="H"), "in_channels=6 must be a positive multiple of 4"),
        (
            lambda: nn.AlgebraConv2d(8, 8, 3, groups=8, algebra="H"),
            "groups=8 must divide .* in_channels=8 and out_channels=8, 2 and 2 tuples of 4 .* use groups=2",
        ),
        (lambda: nn.AlgebraConv2d(8, 8, (3, 3, 3), algebra="H"), r"kernel_size must be an int or 2 of them"),
        (lambda: nn.AlgebraConv2d(8, 8, 0, algebra="H"), "kernel_size must be at least 1, got 0"),
        (lambda: nn.AlgebraConv2d(8, 8, 3, stride=(1, 0), algebra="H"), "stride must be at least 1, got 0"),
        (lambda: nn.AlgebraConv2d(8, 8, 3, padding=-1, algebra="H"), "^padding must be at least 0, got -1"),
        (lambda: nn.AlgebraConv2d(8, 8, 3, padding="some", algebra="H"), "'same' or 'valid', got 'some'"),
        (lambda: nn.AlgebraConv2d(8, 8, 3, 2, padding="same", algebra="H"), "padding='same' needs stride 1"),
        (lambda: nn.AlgebraConv2d(8, 8, 3, padding_mode="x", algebra="H"), "padding_mode must be one of"),
        (lambda: nn.AlgebraConvTranspose2d(8, 8, 3, padding_mode="reflect", algebra="H"), "must be 'zeros'"),
        (lambda: nn.AlgebraConvTranspose2d(8, 8, 3, padding="same", algebra="H"), "must be an int or a sequence"),
        (lambda: nn.AlgebraConv2d(8, 8, 3, algebra="H")(torch.ones(1, 4, 5, 5)), "with 8 channels"),
        (lambda: nn.AlgebraConv2d(8, 8, 3, algebra="H")(torch.ones(8, 5)), "2 dimensions after them"),
        (lambda: algebra_conv(torch.ones(1, 4, 5), torch.ones(4, 4), "H"), "1 to 3 kernel"),
        (
            lambda: nn.AlgebraConvTranspose2d(8, 8, 3, stride=2, output_padding=2, algebra="H"),
            "output_padding=2 must be below the larger of stride and dilation, 2, 2 here",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [nn.AlgebraConv1d, nn.AlgebraConv2d, nn.AlgebraConv3d])
def test_output_padding_is_for_transposed_ones(make):
    with pytest.raises(TypeError, match="output_padding"):
        make(8, 8, 3, algebra="H", output_padding=1)


@pytest.mark.parametrize("make", [nn.AlgebraConv1d, nn.AlgebraConvTranspose1d])
@pytest.mark.parametrize("name", ["R", "M2R", "D4"])
def test_input_of_another_dtype(make, name):
    with pytest.raises(TypeError, match="input is torch.float64 but the parameters are torch.float32"):
        make(8, 8, 3, algebra=name)(torch.ones(1, 8, 5, dtype=torch.float64))
