"""word2ket and word2ketXS against rows multiplied out one by one."""

import pytest
import torch
from oracles import kronecker as oracle

import lognet
from lognet.nn import TiedOutput, Word2KetEmbedding, Word2KetXSEmbedding


def expanded(layer):
    """The table of a Word2KetEmbedding by equation 3.3, word by word and term by term."""
    rows = []
    for word in layer.v.detach().view(layer.num_embeddings, layer.rank, layer.order, layer.q):
        terms = []
        for term in word:
            v = term[0]
            for factor in term[1:]:
                v = torch.outer(v, factor).flatten()
            terms.append(v)
        rows.append(sum(terms))
    table = torch.stack(rows)
    if layer.padding_idx is not None:
        table[layer.padding_idx] = 0
    return table


@pytest.mark.parametrize(("order", "dim"), [(2, 9), (2, 7), (3, 8), (4, 16), (5, 30)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_word2ket_is_equation_3_3(order, dim, dtype):
    layer = Word2KetEmbedding(6, dim, order, rank=3, padding_idx=2, dtype=dtype)
    torch.testing.assert_close(layer.weight, expanded(layer)[:, :dim], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("padding_idx", [None, 1, -1])
def test_word2ket(padding_idx, layer_norm):
    index = torch.tensor([[0, 1, 4], [4, 3, 3]])
    make = lambda **k: Word2KetEmbedding(5, 12, order=2, rank=2, padding_idx=padding_idx, layer_norm=layer_norm, **k)
    if layer_norm:  # the norm of a node with a variance near zero is too steep for a comparison in 16 bits
        layer = make(dtype=torch.float64)
        torch.testing.assert_close(layer(index), layer.weight[index])
        assert torch.autograd.gradcheck(lambda v: torch.func.functional_call(layer, {"v": v}, (index,)), (layer.v,))
        oracle.check_log_twin(make(dtype=torch.float64, bits=10), lambda m: m(index))
    else:
        oracle.check_layer(make, index, lambda i, w, b: w[i])


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("bits", [None, 8])
def test_inner_products_need_no_expansion(order, bits):
    layer = Word2KetEmbedding(7, 2**order, order, rank=3, padding_idx=0, bits=bits, dtype=torch.float64)
    table = layer.weight
    first, second = torch.arange(7).view(7, 1), torch.arange(7)
    torch.testing.assert_close(layer.inner(first, second), table @ table.T)
    if bits is None:
        ours = torch.autograd.grad(layer.inner(first, second).sum(), layer.v)
        theirs = torch.autograd.grad((layer.weight @ layer.weight.T).sum(), layer.v)
        torch.testing.assert_close(ours, theirs)


def test_inner_products_with_layer_norm_expand():
    layer = Word2KetEmbedding(7, 16, 2, 3, layer_norm=True, dtype=torch.float64)
    index = torch.arange(7)
    torch.testing.assert_close(layer.inner(index, index), layer.weight.square().sum(-1))


@pytest.mark.parametrize(("order", "size"), [(2, (9, 4)), (2, (7, 5)), (3, (20, 8)), (4, (17, 10))])
@pytest.mark.parametrize("padding_idx", [None, 3])
def test_xs(order, size, padding_idx):
    index = torch.tensor([[0, 1, size[0] - 1], [3, 3, 5]])
    make = lambda **k: Word2KetXSEmbedding(*size, order=order, rank=2, padding_idx=padding_idx, **k)
    layer = oracle.check_layer(make, index, lambda i, w, b: w[i])
    table = oracle.kronecker_sum(*(f.detach() for f in layer.factors()))[: size[0], : size[1]]
    if padding_idx is not None:
        table[padding_idx] = 0
    torch.testing.assert_close(layer.weight.detach(), table)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_xs_with_layer_norm(order):
    layer = Word2KetXSEmbedding(13, 10, order, 2, padding_idx=2, layer_norm=True, dtype=torch.float64)
    index = torch.tensor([0, 2, 12, 7])
    torch.testing.assert_close(layer(index), layer.weight[index])
    assert (layer.weight[2] == 0).all()
    x = torch.randn(3, 10, dtype=torch.float64)
    torch.testing.assert_close(layer.logits(x), x @ layer.weight.T)
    bits = Word2KetXSEmbedding(13, 10, order, 2, padding_idx=2, layer_norm=True, dtype=torch.float64, bits=8)
    oracle.check_log_twin(bits, lambda m: m.logits(x), limit=x.numel() * 8)
    names = [name for name, _ in layer.named_parameters()]
    function = lambda *f: torch.func.functional_call(layer, dict(zip(names, f, strict=True)), (index,))
    assert torch.autograd.gradcheck(function, tuple(layer.parameters()))
    with pytest.raises(ValueError, match="fit_ needs order=2 and layer_norm=False"):
        layer.fit_(torch.zeros(13, 10))


def test_parameter_counts_of_the_paper():
    count = lambda *a: sum(p.numel() for p in Word2KetXSEmbedding(*a).parameters())
    assert count(118_655, 300, 4, 1) == 4 * 19 * 5 == 380
    assert count(118_655, 300, 2, 2) == 24_840
    assert count(81, 16, 4, 5) == 120
    assert count(30_000, 256, 4, 1) == 224
    assert count(30_000, 256, 4, 2) == 448
    layer = Word2KetEmbedding(1, 256, order=4, rank=5)  # figure 3: twenty 4-dimensional vectors
    assert layer.kets(torch.tensor(0)).shape == (5, 4, 4)
    assert sum(p.numel() for p in layer.parameters()) == 80


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 1), (0,)])
@pytest.mark.parametrize("make", [Word2KetEmbedding, Word2KetXSEmbedding])
def test_any_input_shape(make, shape):
    layer = make(10, 6, 2, 2)
    index = torch.randint(10, shape)
    torch.testing.assert_close(layer(index), layer.weight[index])
    torch.testing.assert_close(layer(index.int()), layer.weight[index])


@pytest.mark.parametrize("impl", ["materialize", "contract"])
@pytest.mark.parametrize("order", [2, 3])
def test_tied_output_of_xs(order, impl):
    layer = TiedOutput(Word2KetXSEmbedding(13, 10, order, 2, padding_idx=2, impl=impl, dtype=torch.float64), bias=True)
    x = torch.randn(2, 4, 10, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x @ layer.weight.T)
    oracle.check_log_twin(lognet.wrap(layer), lambda m: m(x), limit=x.numel() * 8)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_tied_output_of_word2ket(layer_norm):
    layer = TiedOutput(
        Word2KetEmbedding(13, 10, 2, 2, padding_idx=2, layer_norm=layer_norm, dtype=torch.float64), bias=True
    )
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 4, 10, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias)
    oracle.check_log_twin(lognet.wrap(layer), lambda m: m(x), limit=x.numel() * 8)


@pytest.mark.parametrize("make", [Word2KetEmbedding, Word2KetXSEmbedding])
def test_initial_variance_is_one(make):
    variance = torch.stack([make(500, 64, 2, 4).weight.var() for _ in range(16)]).mean().item()
    assert 0.7 < variance < 1.4


def test_memory_does_not_grow_with_the_vocabulary():
    def bytes_of(num_embeddings):
        layer = Word2KetXSEmbedding(num_embeddings, 64, order=3, rank=2)
        index = torch.randint(num_embeddings, (50,))
        with torch.profiler.profile(profile_memory=True) as profile, torch.no_grad():
            layer(index)
        return sum(max(e.self_cpu_memory_usage, 0) for e in profile.key_averages())

    small, large = bytes_of(10_000), bytes_of(1_000_000)
    assert large < 2 * small < 10_000 * 64 * 4 / 2


@pytest.mark.parametrize("make", [Word2KetEmbedding, Word2KetXSEmbedding])
def test_graph_keeps_codes_only(make):
    layer = make(300, 256, 2, 3, bits=8)
    index = torch.arange(8)
    limit = 0 if make is Word2KetXSEmbedding else 8 * 3 * 2 * 16 * 4  # the words looked up are activations
    oracle.check_log_twin(layer, lambda m: m(index), limit=limit)


def test_fit_of_xs():
    source = Word2KetXSEmbedding(30, 10, 2, 3, dtype=torch.float64)
    layer = Word2KetXSEmbedding(30, 10, 2, 12, dtype=torch.float64).fit_(source.weight.detach())
    torch.testing.assert_close(layer.weight, source.weight)


@pytest.mark.traces
def test_compile():
    for layer in (Word2KetEmbedding(9, 8, 3, 2), Word2KetXSEmbedding(9, 8, 3, 2)):
        torch.testing.assert_close(oracle.compiled(layer)(torch.arange(9)), layer.weight)


@pytest.mark.parametrize("make", [Word2KetEmbedding, Word2KetXSEmbedding])
def test_errors(make):
    with pytest.raises(ValueError, match="order must be at least 2, got 1"):
        make(10, 4, 1, 1)
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        make(10, 4, 2, 0)
    with pytest.raises(TypeError, match=r"order must be an int, got 2\.0"):
        make(10, 4, 2.0, 1)
    with pytest.raises(ValueError, match="padding_idx must lie within num_embeddings=10, got -11"):
        make(10, 4, 2, 1, padding_idx=-11)
    with pytest.raises(IndexError, match=r"indices must lie in 0 \.\. 9, got 10"):
        make(10, 4, 2, 1)(torch.tensor([10]))
    with pytest.raises(TypeError, match="input must be an integer tensor"):
        make(10, 4, 2, 1)(torch.tensor([1.0]))


def test_padding_idx_and_hidden_states_of_word2ket():
    with pytest.raises(TypeError, match="padding_idx must be an int or None, got 'a'"):
        Word2KetEmbedding(8, 8, 2, 1, padding_idx="a")
    with pytest.raises(ValueError, match="got 8; use -8 to 7, or None"):
        Word2KetEmbedding(8, 8, 2, 1, padding_idx=8)
    with pytest.raises(ValueError, match="in_features=8 as its last size"):
        Word2KetEmbedding(8, 8, 2, 1).logits(torch.randn(2, 7))
