"""The core against the definition, entry by entry."""

import pytest
import torch
import torch.nn.functional as F
from oracles import kronecker as oracle

from lognet import LogTensor
from lognet.nn import kronecker_linear, kronecker_rows, kronecker_sum, nearest_kronecker_sum
from lognet.nn.kronecker.sums import mixed_radix, tensor_product_tree, truncated_svd

# rank, then (rows, columns) of each factor: square, crossed, low rank, one, three, four and five factors
FACTORS = {
    "square": (2, (3, 3), (2, 2)),
    "crossed": (3, (2, 5), (4, 3)),
    "wide first": (2, (1, 6), (5, 1)),
    "low rank": (3, (7, 1), (1, 5)),
    "one term": (1, (4, 2), (3, 3)),
    "order 3": (2, (2, 3), (3, 1), (2, 2)),
    "order 4": (2, (2, 2), (3, 2), (1, 2), (2, 1)),
    "order 5": (1, (2, 1), (1, 2), (2, 2), (2, 1), (1, 2)),
}
DTYPES = {torch.float16: 2e-2, torch.bfloat16: 1e-1, torch.float32: 1e-5, torch.float64: 1e-12}


def factors_of(name, dtype=torch.float64):
    rank, *sides = FACTORS[name]
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(rank, *s, generator=generator, dtype=torch.float64).to(dtype) for s in sides]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FACTORS)
def test_kronecker_sum(name, dtype):
    factors = factors_of(name, dtype)
    ours = kronecker_sum(*factors)
    assert ours.dtype == dtype
    assert ours.is_contiguous()
    expected = oracle.kronecker_sum(*(f.double() for f in factors))
    torch.testing.assert_close(ours.double(), expected, rtol=DTYPES[dtype], atol=DTYPES[dtype])
    terms = [f.double().unbind() for f in factors]
    by_torch = torch.zeros_like(expected)
    for term in zip(*terms, strict=True):
        product = term[0]
        for f in term[1:]:
            product = torch.kron(product, f)
        by_torch += product
    torch.testing.assert_close(expected, by_torch, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("impl", ["auto", "materialize", "contract"])
@pytest.mark.parametrize("name", FACTORS)
def test_kronecker_linear(name, impl, dtype):
    factors = factors_of(name, dtype)
    w = oracle.kronecker_sum(*(f.double() for f in factors))
    for leading in [(), (3,), (2, 3), (0,)]:
        for crop in [(0, 0), (1, 1)]:
            rows, columns = w.shape[0] - crop[0], w.shape[1] - crop[1]
            x, bias = torch.randn(*leading, columns, dtype=dtype), torch.randn(rows, dtype=dtype)
            ours = kronecker_linear(x, factors, bias, (rows, columns), impl)
            expected = F.linear(x.double(), w[:rows, :columns], bias.double())
            assert ours.dtype == dtype
            torch.testing.assert_close(ours.double(), expected, rtol=4 * DTYPES[dtype], atol=8 * DTYPES[dtype])


def test_noncontiguous_inputs():
    factors = factors_of("crossed")
    x = torch.randn(15, 4, dtype=torch.float64).t()
    for impl in ("materialize", "contract"):
        torch.testing.assert_close(kronecker_linear(x, factors, impl=impl), x @ kronecker_sum(*factors).T)


@pytest.mark.parametrize("impl", ["materialize", "contract"])
@pytest.mark.parametrize("name", FACTORS)
def test_gradients_of_linear(name, impl):
    factors = [f.requires_grad_() for f in factors_of(name)]
    columns = kronecker_sum(*factors).shape[1]
    x = torch.randn(2, columns, dtype=torch.float64, requires_grad=True)
    function = lambda x, *factors: kronecker_linear(x, factors, impl=impl)
    assert torch.autograd.gradcheck(function, (x, *factors))
    if name in ("crossed", "order 3"):
        assert torch.autograd.gradgradcheck(function, (x, *factors))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FACTORS)
def test_rows(name, dtype):
    factors = [f.requires_grad_() for f in factors_of(name, dtype)]
    w = oracle.kronecker_sum(*(f.detach() for f in factors))
    index = torch.arange(w.shape[0])
    for columns in range(1, w.shape[1] + 1):
        torch.testing.assert_close(kronecker_rows(index, factors, columns), w[:, :columns], rtol=1e-5, atol=1e-5)
    for shape in [(), (1,), (2, 3), (0,), (2, 0)]:
        some = torch.randint(w.shape[0], shape)
        assert kronecker_rows(some, factors).shape == (*shape, w.shape[1])
        torch.testing.assert_close(kronecker_rows(some, factors).detach(), w[some], rtol=1e-5, atol=1e-5)
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(lambda *f: kronecker_rows(index.flip(0), f), factors)


def test_digits():
    radices = (3, 4, 2)
    digits = mixed_radix(torch.arange(24), radices)
    assert [tuple(int(d[i]) for d in digits) for i in range(24)] == [
        (a, b, c) for a in range(3) for b in range(4) for c in range(2)
    ]


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 7])
def test_tree(order):
    leaves = [torch.randn(5, 2, 2 + j % 2, dtype=torch.float64) for j in range(order)]
    rows = []
    for i in range(5):
        terms = []
        for k in range(2):
            v = torch.ones(1, dtype=torch.float64)
            for leaf in leaves:
                v = torch.kron(v, leaf[i, k])
            terms.append(v)
        rows.append(sum(terms))
    torch.testing.assert_close(tensor_product_tree(leaves), torch.stack(rows))


def test_tree_with_layer_norm_is_the_figure_s():
    a, b, c, d = (torch.randn(3, 2, 3, dtype=torch.float64) for _ in range(4))

    def norm(v):
        return (v - v.mean(-1, keepdim=True)) / (v.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    def product(v, w):
        return norm(torch.einsum("nki,nkj->nkij", v, w).flatten(-2))

    expected = product(product(a, b), product(c, d)).sum(1)
    torch.testing.assert_close(tensor_product_tree([a, b, c, d], layer_norm=True), expected)


# LogTensor factors


@pytest.mark.parametrize("impl", ["materialize", "contract"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_factors_as_their_twins(impl, dtype):
    logs = [torch.nn.Parameter(LogTensor.from_float(f, bits=10)) for f in factors_of("crossed", dtype)]
    twins = [f.detach().dequantize().requires_grad_() for f in logs]
    x = torch.randn(4, 15, dtype=dtype)
    for function in (
        lambda *f: kronecker_linear(x, f, impl=impl),
        lambda *f: kronecker_sum(*f),
        lambda *f: kronecker_rows(torch.tensor([3, 0, 3]), f),
    ):
        ours, theirs = function(*logs), function(*twins)
        torch.testing.assert_close(ours, theirs)
        cotangent = torch.randn_like(ours)
        for our, their in zip(
            torch.autograd.grad(ours, logs, cotangent), torch.autograd.grad(theirs, twins, cotangent), strict=True
        ):
            assert type(our) is torch.Tensor
            torch.testing.assert_close(our, their)


@pytest.mark.parametrize("impl", ["materialize", "contract"])
def test_the_graph_keeps_codes_and_the_input(impl):
    logs = [torch.nn.Parameter(LogTensor.from_float(torch.randn(4, 16, 16))) for _ in range(2)]
    x = torch.randn(2, 256)
    kept, out = oracle.saved_bytes(lambda: kronecker_linear(x, logs, impl=impl))
    assert kept == x.numel() * 4
    out.sum().backward()


# Nearest sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_recovery_when_the_rank_suffices(dtype):
    factors = factors_of("crossed", dtype)
    w = kronecker_sum(*factors)
    for rank in (3, 4, 10):
        found = nearest_kronecker_sum(w, (2, 5, 4, 3), rank)
        assert found[0].shape == (rank, 2, 5)
        assert found[1].shape == (rank, 4, 3)
        torch.testing.assert_close(kronecker_sum(*found), w, rtol=1e-4, atol=1e-5 if dtype == torch.float32 else 1e-12)
    everything = torch.randn(6, 6, dtype=dtype)
    torch.testing.assert_close(kronecker_sum(*nearest_kronecker_sum(everything, (2, 3, 3, 2), 6)), everything)


def test_the_error_is_that_of_the_singular_values_left_out():
    w = torch.randn(12, 10, dtype=torch.float64)
    shape = (3, 5, 4, 2)
    blocks = [w[4 * p : 4 * p + 4, 2 * s : 2 * s + 2].reshape(-1) for p in range(3) for s in range(5)]
    singular = torch.linalg.svdvals(torch.stack(blocks))
    for rank in range(1, 9):
        error = (kronecker_sum(*nearest_kronecker_sum(w, shape, rank)) - w).norm()
        torch.testing.assert_close(error, singular[rank:].norm(), atol=1e-10, rtol=1e-10)


def test_no_other_factors_are_nearer():
    w = torch.randn(6, 6, dtype=torch.float64)
    a, b = (f.requires_grad_() for f in nearest_kronecker_sum(w, (3, 2, 2, 3), 2))
    loss = (kronecker_sum(a, b) - w).square().sum()
    for grad in torch.autograd.grad(loss, (a, b)):
        assert grad.abs().max() < 1e-10


def test_padded_matrices():
    w = torch.randn(5, 7, dtype=torch.float64)
    found = nearest_kronecker_sum(w, (3, 3, 3, 3), 9)
    torch.testing.assert_close(kronecker_sum(*found)[:5, :7], w)
    with pytest.raises(ValueError, match=r"shape=\(2, 3, 2, 3\) reaches 4 x 9, less than the matrix's 5 x 7"):
        nearest_kronecker_sum(w, (2, 3, 2, 3), 1)


@pytest.mark.parametrize("shape", [(600, 520), (520, 600)])
def test_large_matrices_go_another_way_to_the_same(shape):
    u, v = torch.randn(shape[0], 6, dtype=torch.float64), torch.randn(6, shape[1], dtype=torch.float64)
    w = u @ v
    left, right = truncated_svd(w, 6)
    torch.testing.assert_close(left @ right, w, rtol=1e-9, atol=1e-9)
    noisy = w + 0.1 * torch.randn(shape, dtype=torch.float64)
    left, right = truncated_svd(noisy, 4)
    best = torch.linalg.svdvals(noisy)[4:].norm()
    torch.testing.assert_close((left @ right - noisy).norm(), best, rtol=1e-10, atol=0)
    torch.testing.assert_close(left.norm(dim=0), right.norm(dim=1), rtol=1e-9, atol=0)
    assert [m.shape[0] for m in truncated_svd(w[:, :515].T, 700)] == [515, 700]


# Errors


def test_errors():
    a, b = torch.zeros(2, 3, 4), torch.zeros(2, 5, 6)
    with pytest.raises(ValueError, match=r"factors must be two or more of shape \(rank, rows, columns\) with one rank"):
        kronecker_sum(a)
    with pytest.raises(ValueError, match="with one rank"):
        kronecker_sum(a, b[:1])
    with pytest.raises(ValueError, match="with one rank"):
        kronecker_sum(a, b[0])
    with pytest.raises(ValueError, match="x must have in_features=24 as its last size"):
        kronecker_linear(torch.zeros(2, 23), (a, b))
    with pytest.raises(ValueError, match=r"shape=\(16, 24\) exceeds the factors' \(15, 24\)"):
        kronecker_linear(torch.zeros(2, 24), (a, b), shape=(16, 24))
    with pytest.raises(ValueError, match="impl must be one of 'auto', 'materialize', 'contract', got 'fast'"):
        kronecker_linear(torch.zeros(2, 24), (a, b), impl="fast")
