"""PHM Transformers: `compress` of torch's own with PHM, against torch's with the same dense weights."""

import copy

import pytest
import torch
from oracles import kronecker as oracle
from oracles.attention import dense_twin
from torch import nn

import lognet
from lognet import PHM, compress
from lognet.nn import PHMLinear, PHMMultiheadAttention


def transformer(
    n,
    d_model=8,
    nhead=2,
    layers=2,
    dim_feedforward=12,
    dropout=0.0,
    batch_first=True,
    fused=False,
    rule=None,
    **options,
):
    shape = (d_model, nhead, layers, layers, dim_feedforward, dropout)
    dense = nn.Transformer(*shape, batch_first=batch_first, **options)
    return compress(dense, PHM(n, rule=rule, fused=fused), min_parameters=0)[0]


CAUSAL = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)


def densify(module):
    """A copy with torch's own attention and linear layers of the same weights."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, PHMLinear):
                linear = nn.Linear(child.in_features, child.out_features, child.bias is not None).double()
                values = {"weight": child.weight} | ({} if child.bias is None else {"bias": child.bias})
                linear.load_state_dict(values)
                setattr(parent, name, linear)
            elif isinstance(child, PHMMultiheadAttention):
                twin, weights = dense_twin(child)
                twin.load_state_dict(weights())
                setattr(parent, name, twin)
    return module


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # torch's, of its own arguments
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_as_torch(norm_first, batch_first, training):
    ours = transformer(2, norm_first=norm_first, batch_first=batch_first, dtype=torch.float64).train(training)
    twin = densify(ours)
    assert not any(isinstance(m, PHMLinear) for m in twin.modules())
    source, target = torch.randn(3, 4, 8, dtype=torch.float64), torch.randn(3, 5, 8, dtype=torch.float64)
    if not batch_first:
        source, target = source.transpose(0, 1), target.transpose(0, 1)
    masks = {"tgt_mask": CAUSAL, "tgt_is_causal": True, "src_key_padding_mask": torch.zeros(3, 4, dtype=torch.bool)}
    torch.testing.assert_close(ours(source, target, **masks), twin(source, target, **masks))
    with torch.no_grad():
        torch.testing.assert_close(ours(source, target), twin(source, target))


@pytest.mark.parametrize("fused", [False, True])
def test_initial_matrices_have_the_size_of_torch_s(fused):
    torch.manual_seed(0)
    dense = nn.Transformer(64, 4, 1, 1, 128, batch_first=True)
    ours = compress(copy.deepcopy(dense), PHM(4, fused=fused), min_parameters=0)[0]
    old, new = dense.encoder.layers[0], ours.encoder.layers[0]
    projection = new.self_attn.qkv_proj if fused else new.self_attn.k_proj
    for mine, torch_s in ((projection, old.self_attn.in_proj_weight), (new.linear1, old.linear1.weight)):
        assert 0.7 < (mine.weight.std() / torch_s.std()).item() < 1.4
    assert not projection.bias.any()
    assert torch.equal(new.linear1.bias, old.linear1.bias)
    layers = transformer(2).encoder.layers
    assert not torch.equal(layers[0].linear1.S, layers[1].linear1.S)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts():
    dense, n = count(nn.Transformer(64, 4, 2, 2, 128, batch_first=True)), 4
    matrices = 2 * (4 + 8) * 64 * 64 + 4 * 2 * 64 * 128
    layers = 2 * (4 + 8) + 4 * 2
    rule = nn.Parameter(torch.randn(n, n, n) * n**-0.5)
    of_64 = lambda n, **options: count(transformer(n, 64, 4, 2, 128, **options))
    assert of_64(n) == dense - matrices + matrices // n + layers * n**3
    assert of_64(n, fused=True) == dense - matrices + matrices // n + (layers - 2 * 6) * n**3
    assert of_64(n, rule=rule) == dense - matrices + matrices // n + n**3
    assert of_64(1) == dense
    layer = nn.TransformerEncoderLayer(512, 8, 2048, bias=False)
    assert count(compress(layer, PHM(16), min_parameters=0)[0]) == 4 * 20_480 + 2 * 69_632 + 2 * 512


def rules(model):
    return {id(m.A) for m in model.modules() if isinstance(m, PHMLinear)}


def test_one_rule_for_all():
    model = transformer(4, rule=nn.Parameter(lognet.nn.hamilton_rule()))
    assert len(rules(model)) == 1
    assert len(rules(lognet.wrap(model))) == 1
    own = transformer(4, rule="hamilton", layers=1)
    assert len(rules(own)) == 16
    masks = [m.A.mask for m in lognet.wrap(own).modules() if isinstance(m, PHMLinear)]
    assert all(torch.equal(mask, lognet.nn.hamilton_rule() != 0) for mask in masks)
    linear = nn.Sequential(nn.Linear(8, 8))
    with pytest.raises(ValueError, match="fit_ moves the rule A too, and other layers may share this one"):
        compress(linear, PHM(4, rule=nn.Parameter(torch.ones(4, 4, 4))), from_weights=True, min_parameters=0)
    assert type(linear[0]) is nn.Linear


@pytest.mark.parametrize("fused", [False, True])
def test_fused_from_weights_is_exact_where_the_form_suffices(fused):
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    old = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    ours, report = compress(copy.deepcopy(old), PHM(1, fused=fused), from_weights=True, min_parameters=0)
    torch.testing.assert_close(ours(x, x, x), old(x, x, x))
    assert report.layers[0].error < 1e-9
    for make in (nn.LSTM, nn.GRU):
        rnn = make(8, 8, 2, bidirectional=True, dtype=torch.float64)
        torch.testing.assert_close(
            compress(copy.deepcopy(rnn), PHM(1, fused=fused), from_weights=True, min_parameters=0)[0](x), rnn(x)
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_factors(dtype):
    model = lognet.wrap(transformer(2, layers=1, dtype=dtype), bits=10)
    assert all(isinstance(p, lognet.LogTensor) for p in model.parameters())
    source, target = torch.randn(3, 4, 8, dtype=dtype), torch.randn(3, 5, 8, dtype=dtype)
    oracle.check_log_twin(model, lambda m: m(source, target))


def test_training_with_dropout_and_state_dict():
    model, other = (transformer(2, layers=1, dropout=0.5) for _ in range(2))
    other.load_state_dict(model.state_dict())
    x = torch.randn(4, 3, 8)
    assert not torch.equal(model(x, x), model(x, x))
    assert torch.equal(model.eval()(x, x), other.eval()(x, x))
    assert torch.equal(copy.deepcopy(model)(x, x), model(x, x))


def test_compile():
    layer = transformer(2, layers=1).encoder.layers[0]
    x = torch.randn(4, 3, 8)
    torch.testing.assert_close(oracle.compiled(layer)(x), layer(x))


def test_errors():
    with pytest.raises(ValueError, match="layer encoder.layers.0.linear1: n=4 must divide out_features=10"):
        transformer(4, dim_feedforward=10)
