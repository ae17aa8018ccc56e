"""PHM layers against the paper's definition, quaternions, dense layers and their own dense matrix."""

import copy

import pytest
import torch
import torch.nn.functional as F
from oracles import kronecker as oracle
from torch import nn

import lognet
from lognet import LogTensor
from lognet.nn import PHMLSTM, PHMConv1d, PHMConv2d, PHMLinear, PHMMultiheadAttention, hamilton_rule


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(n, bias):
    x = torch.randn(2, 3, 6)
    oracle.check_layer(lambda **k: PHMLinear(6, 12, n, bias, **k), x, F.linear)


@pytest.mark.parametrize("impl", ["materialize", "contract"])
def test_linear_in_either_form(impl):
    oracle.check_layer(lambda **k: PHMLinear(8, 4, 2, impl=impl, **k), torch.randn(3, 8), F.linear)


@pytest.mark.parametrize(("n", "d", "k"), [(2, 8, 6), (3, 6, 9), (4, 4, 4), (5, 10, 20)])
def test_the_papers_definition_to_the_letter(n, d, k):
    """Equations 2.3 and 2.4 with A'[m, p, i] = A[i, p, m] and S'[m, q, j] = S[j, m, q]."""
    a, s = torch.randn(n, n, n, dtype=torch.float64), torch.randn(d // n, n, k // n, dtype=torch.float64)
    layer = PHMLinear(d, k, n, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.A.copy_(a.permute(2, 1, 0))
        layer.S.copy_(s.permute(1, 2, 0))
    torch.testing.assert_close(layer.weight, oracle.r2d2(a, s), rtol=1e-13, atol=1e-13)


def hamilton(s, q):
    """Equation 2.6 with the products of quaternions written out."""
    sr, sx, sy, sz = s
    qr, qx, qy, qz = q
    return torch.stack(
        [
            sr * qr - sx * qx - sy * qy - sz * qz,
            sx * qr + sr * qx - sz * qy + sy * qz,
            sy * qr + sz * qx + sr * qy - sx * qz,
            sz * qr - sy * qx + sx * qy + sr * qz,
        ]
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_hamilton_product(dtype):
    layer = PHMLinear(4, 4, 4, bias=False, rule="hamilton", dtype=dtype)
    s, q = torch.randint(-3, 4, (4,)).to(dtype), torch.randint(-3, 4, (4,)).to(dtype)
    with torch.no_grad():
        layer.S.copy_(s.view(4, 1, 1))
    assert torch.equal(layer(q), hamilton(s, q))  # small integers: exact


def test_quaternion_layer_of_many_components():
    layer = PHMLinear(12, 8, 4, bias=False, rule="hamilton", dtype=torch.float64)
    x = torch.randn(12, dtype=torch.float64).view(4, 3)
    expected = sum(hamilton(layer.S[:, :, j].view(4, 2), x[:, j].view(4, 1).expand(4, 2)) for j in range(3))
    torch.testing.assert_close(layer(x.flatten()), expected.flatten())


def test_hamilton_rule_is_the_table_of_the_paper():
    """Equation 2.6: entry (row, column) of the matrix is +- one component of s; all 64 coefficients."""
    units = torch.eye(4)
    for component, s in enumerate(units):
        for column, q in enumerate(units):
            assert torch.equal(hamilton_rule()[component, :, column], hamilton(s, q))


@pytest.mark.parametrize("n", [1, 2, 4, 8, 16])
def test_parameter_counts(n):
    layer = PHMLinear(512, 2048, n, bias=False)
    assert sum(p.numel() for p in layer.parameters()) == 512 * 2048 // n + (n**3 if n > 1 else 0)
    if n == 16:
        assert sum(p.numel() for p in layer.parameters()) == 69_632
    if n == 1:
        assert layer.A is None


def test_n_1_is_a_linear_layer():
    layer, linear = PHMLinear(5, 3, 1), nn.Linear(5, 3)
    layer.load_state_dict({"S": linear.weight.unsqueeze(0), "bias": linear.bias})
    x = torch.randn(2, 5)
    assert torch.equal(layer(x), linear(x))
    assert torch.equal(layer.weight, linear.weight)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_initial_variance_is_glorots(n):
    variance = torch.stack([PHMLinear(256, 512, n).weight.var() for _ in range(8)]).mean().item()
    assert 0.75 < variance / (2 / 768) < 1.33


def test_shared_rule():
    rule = nn.Parameter(torch.randn(2, 2, 2))
    model = nn.Sequential(PHMLinear(4, 6, 2, rule=rule), PHMLinear(6, 2, 2, rule=rule))
    assert model[0].A is rule
    assert sum(p.numel() for p in model.parameters()) == 8 + 12 + 6 + 6 + 2
    model(torch.randn(3, 4)).sum().backward()
    alone = copy.deepcopy(model)
    assert alone[0].A is alone[1].A
    wrapped = lognet.wrap(copy.deepcopy(model))
    assert wrapped[0].A is wrapped[1].A
    assert isinstance(wrapped[0].A, LogTensor)
    oracle.check_log_twin(wrapped, lambda m: m(torch.ones(3, 4)))


def test_fixed_rule():
    layer = PHMLinear(8, 8, 4, rule="hamilton", train_rule=False, bits=8)
    assert "A" in layer.state_dict()
    assert [name for name, _ in layer.named_parameters()] == ["S", "bias"]
    assert torch.equal(layer.A, hamilton_rule())
    with pytest.raises(ValueError, match="fit_ moves the rule A too, and train_rule=False keeps it fixed"):
        layer.fit_(torch.zeros(8, 8))


def test_trained_rule_from_an_algebra_keeps_its_zeros_in_bits():
    layer = PHMLinear(8, 8, 4, rule="hamilton", bits=8)
    assert torch.equal(layer.A.mask, hamilton_rule() != 0)
    assert torch.equal(layer.A.detach().dequantize() == 0, hamilton_rule() == 0)
    oracle.check_log_twin(layer, lambda m: m(torch.ones(3, 8)))


@pytest.mark.parametrize(
    "make",
    [
        lambda **o: PHMLinear(8, 12, 4, rule="hamilton", **o),
        lambda **o: PHMConv2d(8, 4, 3, n=4, rule="hamilton", **o),
        lambda **o: PHMLSTM(4, 8, 4, rule="hamilton", share_rule=True, **o),
        lambda **o: PHMMultiheadAttention(8, 2, 4, rule="hamilton", **o),
    ],
)
@pytest.mark.parametrize("init", ["quantize", "uniform"])
def test_wrapping_keeps_the_zeros_of_a_rule_as_bits_do(make, init):
    """That wrapping gives what `bits` gives is held by tests/convert/test_every_layer.py."""
    wrapped = lognet.wrap(make(), bits=8, init=init)
    masks = {name: p.mask for name, p in wrapped.named_parameters() if p.mask is not None}
    assert masks.keys() == {name for name, _ in wrapped.named_parameters() if name.split(".")[-1] == "A"} != set()
    assert all(torch.equal(mask, hamilton_rule() != 0) for mask in masks.values())
    again = lognet.requantize(wrapped, bits=10)
    assert sum(p.mask is not None for p in again.parameters()) == len(masks)
    loss = sum(p.dequantize().square().sum() for p in again.parameters())
    loss.backward()
    lognet.optim.Madam(again.parameters(), lr=0.1).step()
    kept = [p.dequantize() == 0 for p in again.parameters() if p.mask is not None]
    assert all(torch.equal(zero, hamilton_rule() == 0) for zero in kept)


def test_a_rule_that_is_zero_everywhere_is_a_start():
    layer = lognet.wrap(PHMLinear(4, 4, 2, rule=torch.zeros(2, 2, 2)))
    assert layer.A.mask is None
    assert layer.bias.mask is None


def test_given_rule_is_copied():
    rule = torch.randn(2, 2, 2)
    layer = PHMLinear(4, 4, 2, rule=rule)
    assert isinstance(layer.A, nn.Parameter)
    with torch.no_grad():
        layer.A.zero_()
    assert rule.abs().sum() > 0


@pytest.mark.parametrize("n", [1, 2, 4])
def test_fit(n):
    source = PHMLinear(8, 12, n, dtype=torch.float64)
    layer = PHMLinear(8, 12, n, dtype=torch.float64).fit_(source.weight.detach())
    torch.testing.assert_close(layer.weight, source.weight)


def test_graph_keeps_codes_only():
    for impl in ("materialize", "contract"):
        x = torch.randn(2, 256)
        layer = PHMLinear(256, 512, 4, impl=impl, bits=8)
        oracle.check_log_twin(layer, lambda m, x=x: m(x), limit=x.numel() * 4)


def test_autocast():
    for bits in (None, 8):
        layer = PHMLinear(8, 12, 4, bits=bits)
        x = torch.randn(3, 8, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = layer(x)
        assert out.dtype == torch.bfloat16
        out.float().sum().backward()
        assert x.grad.dtype == torch.float32
        assert all(p.grad.dtype == torch.float32 for p in layer.parameters())


@pytest.mark.parametrize("impl", ["materialize", "contract"])
def test_compile(impl):
    layer = PHMLinear(8, 12, 4, impl=impl)
    x = torch.randn(3, 8)
    torch.testing.assert_close(oracle.compiled(layer)(x), layer(x))


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_conv1d(n, padding_mode):
    def dense(x, weight, bias):
        twin = nn.Conv1d(4, 6, 3, stride=2, padding=1, padding_mode=padding_mode).double()
        return torch.func.functional_call(twin, {"weight": weight, "bias": bias}, (x,))

    oracle.check_layer(
        lambda **k: PHMConv1d(4, 6, 3, n, stride=2, padding=1, padding_mode=padding_mode, **k),
        torch.randn(2, 4, 7),
        dense,
    )


def test_conv2d():
    x = torch.randn(2, 4, 5, 6)
    make = lambda **k: PHMConv2d(4, 4, (3, 2), 2, stride=(2, 1), padding=(1, 0), dilation=(1, 2), bias=False, **k)
    oracle.check_layer(make, x, lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 0), (1, 2)))
    oracle.check_layer(
        lambda **k: PHMConv2d(8, 4, 2, 2, groups=2, **k),
        torch.randn(1, 8, 3, 3),
        lambda x, w, b: F.conv2d(x, w, b, groups=2),
    )


@pytest.mark.parametrize(("padding_mode", "kernel"), [("zeros", (3, 5)), ("circular", (3, 5)), ("circular", (4, 2))])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_string_paddings(padding, padding_mode, kernel):
    ours = PHMConv2d(2, 4, kernel, 2, padding=padding, padding_mode=padding_mode)
    theirs = nn.Conv2d(2, 4, kernel, padding=padding, padding_mode=padding_mode)
    theirs.load_state_dict({"weight": ours.weight, "bias": ours.bias})
    for shape in [(2, 2, 7, 8), (2, 7, 8)]:
        x = torch.randn(shape)
        torch.testing.assert_close(ours(x), theirs(x))


def test_conv_kernel_is_the_kronecker_sum_at_each_position():
    layer = PHMConv2d(4, 6, 3, 2, dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            expected = oracle.kronecker_sum(layer.A.detach(), layer.S.detach()[..., i, j])
            torch.testing.assert_close(layer.weight[..., i, j].detach(), expected)


def test_errors():
    with pytest.raises(
        ValueError, match="n=4 must divide in_features=6; for these sizes use n=2, or for n=4 in_features=4 or 8"
    ):
        PHMLinear(6, 8, 4)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        PHMLinear(6, 8, 0)
    with pytest.raises(TypeError, match="in_features must be an int"):
        PHMLinear(6.0, 8, 2)
    with pytest.raises(ValueError, match="rule='hamilton' is the product of quaternions and needs n=4, got n=2"):
        PHMLinear(6, 8, 2, rule="hamilton")
    with pytest.raises(ValueError, match="rule must be None, 'hamilton' or a tensor"):
        PHMLinear(8, 8, 8, rule="octonion")
    with pytest.raises(ValueError, match=r"rule must have shape \(2, 2, 2\) for n=2, got \(4, 4, 4\)"):
        PHMLinear(6, 8, 2, rule=hamilton_rule())
    with pytest.raises(ValueError, match="impl must be one of"):
        PHMLinear(6, 8, 2, impl="fast")
    with pytest.raises(ValueError, match="x must have in_features=6"):
        PHMLinear(6, 8, 2)(torch.zeros(8))
    with pytest.raises(ValueError, match="n=4 must divide in_channels / groups=2"):
        PHMConv1d(4, 8, 3, 4, groups=2)
    with pytest.raises(ValueError, match="groups=3 must divide in_channels=4"):
        PHMConv1d(4, 8, 3, 4, groups=3)
    with pytest.raises(ValueError, match="padding_mode must be"):
        PHMConv1d(4, 8, 3, 4, padding_mode="mirror")
    with pytest.raises(ValueError, match=r"kernel_size must be an int or 2 of them, got \(3, 3, 3\)"):
        PHMConv2d(4, 8, (3, 3, 3), 4)
    with pytest.raises(ValueError, match="bits=8 needs values to quantise, and A is on the meta device"):
        PHMLinear(8, 8, 2, bits=8, device="meta")
    assert PHMLinear(8, 8, 2, device="meta")(torch.zeros(3, 8, device="meta")).shape == (3, 8)


def test_rules_of_other_types():
    with pytest.raises(TypeError, match=r"a tensor of shape \(n, n, n\), got list"):
        PHMLinear(4, 4, 2, rule=[1])
    with pytest.raises(ValueError, match="rule is a parameter of torch.float64 in a layer of torch.float32"):
        PHMLinear(4, 4, 2, rule=nn.Parameter(torch.ones(2, 2, 2, dtype=torch.float64)))
    for train in (True, False):
        rule = torch.ones(2, 2, 2, dtype=torch.long)
        layer = PHMLinear(4, 4, 2, rule=rule, train_rule=train, dtype=torch.float64)
        assert layer.A.dtype == torch.float64
        layer(torch.randn(3, 4, dtype=torch.float64))


def test_sizes_of_n_1_and_of_convolutions():
    with pytest.raises(ValueError, match=r"x must have in_features=8 as its last size, got shape \(3, 9\)"):
        PHMLinear(8, 8, 1)(torch.randn(3, 9))
    with pytest.raises(ValueError, match="kernel_size must be at least 1, got 0"):
        PHMConv2d(8, 8, 0, n=4)
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        PHMConv1d(8, 8, 3, n=4, stride=0)
    for options in ({"padding": "sme"}, {"padding": "same", "stride": 2}):
        with pytest.raises(
            ValueError, match="padding must be an int, a sequence, 'same' or 'valid'|padding='same' needs stride 1"
        ):
            PHMConv2d(8, 8, 3, n=4, **options)
