"""Shapeshifter layers and their baseline against dense layers of the same matrix."""

import pytest
import torch
import torch.nn.functional as F
from oracles import kronecker as oracle
from torch import nn

import lognet
from lognet.nn import (
    KroneckerEmbedding,
    KroneckerLinear,
    LowRankEmbedding,
    LowRankLinear,
    TiedOutput,
    kronecker_sum,
)

EMBEDDINGS = {"kronecker": KroneckerEmbedding, "low rank": LowRankEmbedding}


@pytest.mark.parametrize("impl", ["auto", "materialize", "contract"])
@pytest.mark.parametrize(
    ("size", "sizes"), [((6, 12), "auto"), ((7, 11), "padded"), ((7, 11), "divisors"), ((7, 5), "auto")]
)
def test_kronecker_linear(size, sizes, impl):
    x = torch.randn(2, 3, size[0])
    oracle.check_layer(lambda **k: KroneckerLinear(*size, rank=2, sizes=sizes, impl=impl, **k), x, F.linear)


@pytest.mark.parametrize("impl", ["materialize", "contract"])
@pytest.mark.parametrize("bias", [True, False])
def test_low_rank_linear(impl, bias):
    layer = oracle.check_layer(lambda **k: LowRankLinear(6, 5, 3, bias, impl=impl, **k), torch.randn(4, 6), F.linear)
    torch.testing.assert_close(layer.weight, layer.U @ layer.V)


def test_the_papers_reshaping():
    """Section 4.3: (nm^.5 x r)(r x nm^.5), reshaped, transposed, reshaped to n x m."""
    n, m, r = 9, 16, 3
    layer = KroneckerLinear(m, n, r, bias=False, sizes="padded", dtype=torch.float64)
    product = layer.A.reshape(r, 12).T @ layer.B.reshape(r, 12)
    assert product.shape == (12, 12)
    expected = product.reshape(3, 4, 3, 4).transpose(1, 2).reshape(n, m)
    torch.testing.assert_close(layer.weight, expected)
    assert sum(p.numel() for p in layer.parameters()) == 2 * r * 12


def test_parameter_counts():
    count = lambda layer: sum(p.numel() for p in layer.parameters())
    assert count(KroneckerLinear(2048, 512, 16, bias=False)) == 32_768
    assert count(KroneckerLinear(512, 512, 16, bias=False)) == 16_384
    assert count(KroneckerLinear(512, 512, 16, bias=False, sizes="padded")) == 16_928
    assert count(KroneckerEmbedding(32128, 512, 256)) == 2_076_672
    assert count(KroneckerEmbedding(32128, 512, 256, sizes="padded")) == 2_119_680
    assert count(LowRankLinear(512, 2048, 16, bias=False)) == 16 * (512 + 2048)


@pytest.mark.parametrize("make", [KroneckerLinear, LowRankLinear])
@pytest.mark.parametrize("rank", [1, 8])
def test_initial_variance_is_glorots(make, rank):
    variance = torch.stack([make(256, 512, rank).weight.var() for _ in range(16)]).mean().item()
    assert 0.7 < variance / (2 / 768) < 1.4


@pytest.mark.parametrize("make", EMBEDDINGS.values(), ids=EMBEDDINGS.keys())
def test_initial_variance_of_embeddings_is_one(make):
    variance = torch.stack([make(400, 64, 4).weight.var() for _ in range(16)]).mean().item()
    assert 0.7 < variance < 1.4


@pytest.mark.parametrize("padding_idx", [None, 0, -1])
@pytest.mark.parametrize("size", [(7, 5), (12, 8)])
@pytest.mark.parametrize("make", EMBEDDINGS.values(), ids=EMBEDDINGS.keys())
def test_embedding(make, size, padding_idx):
    index = torch.randint(size[0], (2, 3))
    index[0, 0], index[1, 1] = 0, size[0] - 1
    layer = oracle.check_layer(
        lambda **k: make(*size, rank=2, padding_idx=padding_idx, **k), index, lambda i, w, b: w[i]
    )
    if padding_idx is not None:
        assert (layer.weight[padding_idx] == 0).all()
        assert (layer(torch.tensor(layer.padding_idx)) == 0).all()


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 1), (0,)])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("make", EMBEDDINGS.values(), ids=EMBEDDINGS.keys())
def test_any_input_shape(make, shape, dtype):
    layer = make(10, 6, 2)
    index = torch.randint(10, shape, dtype=dtype)
    assert layer(index).shape == (*shape, 6)
    torch.testing.assert_close(layer(index), layer.weight[index.long()])


@pytest.mark.parametrize("impl", ["auto", "materialize", "contract"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("make", EMBEDDINGS.values(), ids=EMBEDDINGS.keys())
def test_tied_output(make, bias, impl):
    def build(**k):
        torch.manual_seed(3)
        return TiedOutput(make(11, 6, 2, padding_idx=4, impl=impl, **k), bias)

    layer = build(dtype=torch.float64)
    if bias:
        nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    expected = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    assert layer(x).shape == (2, 3, 11)
    parameters = [x, *layer.parameters()]
    ours = torch.autograd.grad(layer(x).square().sum(), parameters)
    theirs = torch.autograd.grad(expected.square().sum(), parameters)
    torch.testing.assert_close(ours, theirs)
    oracle.check_log_twin(lognet.wrap(layer), lambda m: m(x.detach()))


def test_one_table_for_input_and_output():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = KroneckerEmbedding(20, 8, rank=2)
            self.output = TiedOutput(self.embedding)

        def forward(self, index):
            return self.output(self.embedding(index))

    model = Model()
    assert sum(p.numel() for p in model.parameters()) == 2 * (4 * 4 + 5 * 2)
    wrapped = lognet.wrap(model)
    assert wrapped.output.embedding.A is wrapped.embedding.A
    oracle.check_log_twin(wrapped, lambda m: m(torch.arange(20)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fit(dtype):
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(12, 10, generator=generator, dtype=dtype)
    for rank, exact in ((1, False), (12, True)):
        layer = KroneckerLinear(10, 12, rank, dtype=dtype)
        assert torch.allclose(layer.fit_(w).weight, w, atol=1e-5) == exact
    for rank, exact in ((1, False), (10, True)):
        layer = LowRankLinear(10, 12, rank, dtype=dtype)
        assert torch.allclose(layer.fit_(w).weight, w, atol=1e-5) == exact
        table = LowRankEmbedding(12, 10, rank, dtype=dtype)
        assert torch.allclose(table.fit_(w).weight, w, atol=1e-5) == exact
    for sizes in ("padded", "divisors"):
        assert torch.allclose(KroneckerEmbedding(12, 10, 16, sizes=sizes, dtype=dtype).fit_(w).weight, w, atol=1e-5)


def test_graph_keeps_codes_only():
    x = torch.randn(2, 256)
    for impl in ("materialize", "contract"):
        for make in (KroneckerLinear, LowRankLinear):
            layer = make(256, 256, 8, impl=impl, bits=8)
            oracle.check_log_twin(layer, lambda m: m(x), limit=x.numel() * 4)
        oracle.check_log_twin(
            TiedOutput(KroneckerEmbedding(300, 256, 8, impl=impl, bits=8)), lambda m: m(x), limit=x.numel() * 4
        )
    index = torch.arange(10)
    oracle.check_log_twin(KroneckerEmbedding(300, 256, 8, bits=8), lambda m: m(index), limit=0)
    oracle.check_log_twin(LowRankEmbedding(300, 64, 8, bits=8), lambda m: m(index), limit=10 * 8 * 4)


@pytest.mark.parametrize("impl", ["materialize", "contract"])
def test_compile(impl):
    x = torch.randn(3, 12)
    for layer in (KroneckerLinear(12, 6, 2, impl=impl), LowRankLinear(12, 6, 2, impl=impl)):
        torch.testing.assert_close(oracle.compiled(layer)(x), layer(x))
    table = KroneckerEmbedding(20, 12, 3, padding_idx=1)
    torch.testing.assert_close(oracle.compiled(table)(torch.arange(20)), table.weight)


def test_errors():
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        KroneckerLinear(4, 4, 0)
    with pytest.raises(ValueError, match="in_features must be at least 1, got 0"):
        KroneckerLinear(0, 4, 1)
    with pytest.raises(ValueError, match="sizes must be one of"):
        KroneckerLinear(4, 4, 1, sizes="square")
    for make in EMBEDDINGS.values():
        with pytest.raises(ValueError, match="padding_idx must lie within num_embeddings=10, got 10; use -10 to 9"):
            make(10, 4, 1, padding_idx=10)
        layer = make(10, 4, 1)
        with pytest.raises(IndexError, match=r"indices must lie in 0 \.\. 9, got 10"):
            layer(torch.tensor([3, 10]))
        with pytest.raises(IndexError, match=r"indices must lie in 0 \.\. 9, got -1"):
            layer(torch.tensor(-1))
        with pytest.raises(TypeError, match="input must be an integer tensor of indices, got torch.float32"):
            layer(torch.zeros(2))
    assert kronecker_sum(*KroneckerLinear(7, 5, 1).factors()).shape >= (5, 7)


@pytest.mark.parametrize("impl", ["materialize", "contract"])
@pytest.mark.parametrize("bits", [None, 8])
def test_autocast_gives_its_dtype_in_either_form(impl, bits):
    """Also with a bias, which stays float32."""
    layer, x = KroneckerLinear(8, 12, 2, impl=impl, bits=bits), torch.randn(5, 8)
    embedding = KroneckerEmbedding(10, 8, 2, impl=impl, bits=bits)
    with torch.autocast("cpu", torch.bfloat16):
        y, scores = layer(x), embedding.logits(x, torch.ones(10))
    assert y.dtype == scores.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.05)
    (y.float().sum() + scores.float().sum()).backward()
    assert layer.bias.grad.dtype == torch.float32


@pytest.mark.parametrize("make", [KroneckerEmbedding, LowRankEmbedding])
def test_padding_idx_and_indices_of_other_types(make):
    for padding in (1.0, True, "1"):
        with pytest.raises(TypeError, match="padding_idx must be an int or None, got"):
            make(8, 8, 1, padding_idx=padding)
    embedding = make(8, 8, 1)
    for index in ([1, 2], torch.tensor([1], dtype=torch.uint8), torch.tensor([True])):
        with pytest.raises(TypeError, match="input must be an integer tensor of indices, got"):
            embedding(index)
    with pytest.raises(ValueError, match=r"bias must have shape \(8,\), out_features, got \(3,\)"):
        embedding.logits(torch.randn(2, 8), torch.ones(3))


def test_inputs_without_a_last_size():
    for layer in (KroneckerLinear(8, 8, 1), LowRankLinear(8, 8, 1)):
        with pytest.raises(ValueError, match=r"in_features=8 as its last size, got shape \(\)"):
            layer(torch.tensor(1.0))
