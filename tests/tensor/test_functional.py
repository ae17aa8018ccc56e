"""Every operation against torch's own on the dequantised weight: values, gradients, and what the graph keeps."""

import copy

import pytest
import torch
import torch.nn.functional as F
from oracles.graph import saved_bytes
from torch import nn

import lognet
from lognet import LogTensor
from lognet.quant import kernels
from lognet.tensor.recompute import recomputed


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


INDEX = torch.tensor([[0, 3, 3], [5, 2, 0]])
# name: (operation on (x, weight, bias), shapes of x, weight and bias; None where there is none)
CASES = {
    "linear": (F.linear, (3, 5), (4, 5), (4,)),
    "linear without bias": (lambda x, w, b: F.linear(x, w), (2, 3, 5), (4, 5), None),
    "linear on a vector": (F.linear, (5,), (4, 5), (4,)),
    "linear on nothing": (F.linear, (0, 5), (4, 5), (4,)),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1), (2, 3, 9), (4, 3, 3), (4,)),
    "conv1d unbatched": (F.conv1d, (3, 9), (4, 3, 3), (4,)),
    "conv1d same, even kernel": (lambda x, w, b: F.conv1d(x, w, b, padding="same"), (2, 3, 9), (4, 3, 4), (4,)),
    "conv2d": (F.conv2d, (2, 3, 6, 7), (4, 3, 3, 2), (4,)),
    "conv2d same": (lambda x, w, b: F.conv2d(x, w, b, padding="same", dilation=2), (2, 3, 6, 7), (4, 3, 3, 2), (4,)),
    "conv2d valid": (lambda x, w, b: F.conv2d(x, w, b, 1, "valid"), (2, 3, 6, 7), (4, 3, 3, 2), (4,)),
    "conv2d grouped": (lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 0), groups=2), (2, 4, 6, 7), (6, 2, 3, 2), (6,)),
    "conv2d depthwise": (lambda x, w, b: F.conv2d(x, w, b, groups=4), (2, 4, 6, 7), (4, 1, 3, 3), None),
    "conv3d": (lambda x, w, b: F.conv3d(x, w, b, padding=(1, 0, 1)), (2, 2, 4, 5, 3), (3, 2, 2, 2, 2), (3,)),
    "transposed 1d": (
        lambda x, w, b: F.conv_transpose1d(x, w, b, stride=2, output_padding=1),
        (2, 3, 5),
        (3, 4, 3),
        (4,),
    ),
    "transposed 2d": (lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 0, 1, 2), (2, 3, 4, 5), (3, 4, 3, 2), (4,)),
    "transposed 2d grouped": (lambda x, w, b: F.conv_transpose2d(x, w, b, groups=2), (2, 4, 4, 5), (4, 3, 3, 2), (6,)),
    "transposed 3d": (F.conv_transpose3d, (1, 2, 3, 3, 2), (2, 3, 2, 2, 2), (3,)),
    "embedding": (lambda x, w, b: F.embedding(INDEX, w), None, (6, 4), None),
    "embedding, padding": (lambda x, w, b: F.embedding(INDEX, w, padding_idx=3), None, (6, 4), None),
    "embedding, negative padding": (lambda x, w, b: F.embedding(INDEX, w, padding_idx=-3), None, (6, 4), None),
    "embedding, by frequency": (lambda x, w, b: F.embedding(INDEX, w, scale_grad_by_freq=True), None, (6, 4), None),
    "embedding_bag": (lambda x, w, b: F.embedding_bag(INDEX, w), None, (6, 4), None),
    "matmul": (lambda x, w, b: x @ w, (3, 5), (5, 4), None),
    "matmul from the left": (lambda x, w, b: w @ x, (5, 3), (4, 5), None),
    "matmul, broadcast": (lambda x, w, b: torch.matmul(x, w), (2, 3, 5), (5, 4), None),
    "matmul, broadcast batches": (lambda x, w, b: torch.matmul(x, w), (3, 1, 2, 5), (2, 5, 4), None),
    "matmul, vectors": (lambda x, w, b: x @ w, (5,), (5,), None),
    "matmul, matrix by vector": (lambda x, w, b: w @ x, (5,), (4, 5), None),
    "matmul, transposed weight": (lambda x, w, b: x @ w.T, (3, 5), (4, 5), None),
    "bmm": (lambda x, w, b: torch.bmm(x, w), (2, 3, 5), (2, 5, 4), None),
    "mm": (lambda x, w, b: torch.mm(x, w), (3, 5), (5, 4), None),
    "addmm": (lambda x, w, b: torch.addmm(b, x, w), (3, 5), (5, 4), (4,)),
    "baddbmm": (lambda x, w, b: torch.baddbmm(b, x, w), (2, 3, 5), (2, 5, 4), (2, 3, 4)),
    "einsum": (lambda x, w, b: torch.einsum("bi,ij->bj", x, w), (3, 5), (5, 4), None),
    "bilinear": (lambda x, w, b: F.bilinear(x, x, w, b), (3, 5), (4, 5, 5), (4,)),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (5,), w, b), (3, 5), (5,), (5,)),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), (6, 5), (5,), (5,)),
    "prelu": (lambda x, w, b: F.prelu(x, w), (3, 5), (5,), None),
}


def both(name, dtype, bits=10):
    """The operation with LogTensors and with their dequantised twins."""
    operation, *shapes = CASES[name]
    x, w, b = (None if s is None else randn(*s, seed=i, dtype=dtype) for i, s in enumerate(shapes))
    logs = [None if t is None else nn.Parameter(LogTensor.from_float(t, bits=bits)) for t in (w, b)]
    dense = [None if t is None else t.detach().dequantize().requires_grad_() for t in logs]
    xs = [None if x is None else x.clone().requires_grad_() for _ in range(2)]
    return operation, (xs[0], *logs), (xs[1], *dense)


@pytest.mark.filterwarnings(
    "ignore:Using padding='same' with even kernel"
)  # torch's own, on its side of the comparison
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_those_of_the_dequantised_weight(name, dtype):
    operation, ours, theirs = both(name, dtype)
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
    result, expected = operation(*ours), operation(*theirs)
    torch.testing.assert_close(result, expected, **tolerance)
    cotangent = randn(*expected.shape, seed=9, dtype=dtype)
    result.backward(cotangent)
    expected.backward(cotangent)
    for our, their in zip(ours, theirs, strict=True):
        if our is not None:
            assert type(our.grad) is torch.Tensor
            torch.testing.assert_close(our.grad, their.grad, **tolerance)


@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith("embedding") and "nothing" not in n])
def test_gradcheck_in_float64(name):
    operation, (x, w, b), (_, dense_w, dense_b) = both(name, torch.float64)
    assert torch.autograd.gradcheck(lambda x: operation(x, w, b), (x,))
    # the gradient of a ladder weight is that of the function at the dequantised point: check it numerically there
    operation(x, w, b).sum().backward()
    assert torch.autograd.gradcheck(lambda v: operation(x.detach(), v, dense_b), (dense_w,))
    (numerical,) = torch.autograd.grad(operation(x.detach(), dense_w, dense_b).sum(), dense_w)
    torch.testing.assert_close(w.grad, numerical, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["linear", "conv2d", "transposed 2d", "embedding", "matmul, broadcast batches"])
def test_second_derivatives(name):
    operation, ours, theirs = both(name, torch.float64)
    results = []
    for arguments in (ours, theirs):
        inputs = [a for a in arguments if a is not None]
        first = torch.autograd.grad(operation(*arguments).pow(3).sum(), inputs, create_graph=True)
        results.append(torch.autograd.grad(sum(g.pow(2).sum() for g in first), inputs))
    for our, their in zip(*results, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: (nn.Linear(300, 400), torch.randn(2, 300)),
        lambda: (nn.Conv1d(40, 50, 9), torch.randn(1, 40, 10)),
        lambda: (nn.Conv2d(40, 50, 7), torch.randn(1, 40, 7, 7)),
        lambda: (nn.ConvTranspose2d(40, 50, 7), torch.randn(1, 40, 1, 1)),
        lambda: (nn.Embedding(5000, 40), torch.tensor([1, 2])),
        lambda: (nn.MultiheadAttention(128, 4, batch_first=True), torch.randn(1, 3, 128)),
        lambda: (nn.TransformerEncoderLayer(128, 4, 256, batch_first=True), torch.randn(1, 3, 128)),
        lambda: (nn.LSTM(128, 128), torch.randn(2, 1, 128)),
        lambda: (nn.GRU(128, 128), torch.randn(2, 1, 128)),
    ],
    ids=lambda make: type(make()[0]).__name__,
)
def test_the_graph_keeps_codes_and_never_a_decoded_weight(make):
    torch.manual_seed(0)
    module, x = make()
    lognet.wrap(module)
    largest = max(p.numel() * 4 for p in module.parameters())

    def loss():
        out = module(x, x, x) if isinstance(module, nn.MultiheadAttention) else module(x)
        return (out[0] if isinstance(out, tuple) else out).sum()

    kept, total = saved_bytes(loss)
    assert kept < largest / 2, f"{kept} bytes of dense tensors saved; the largest weight decodes to {largest}"
    total.backward()
    assert all(type(p.grad) is torch.Tensor for p in module.parameters())


def test_a_kept_decoded_weight_would_be_noticed():
    w = nn.Parameter(LogTensor.from_float(torch.randn(400, 300)))
    x = torch.randn(2, 300, requires_grad=True)
    kept, _ = saved_bytes(lambda: F.linear(x, w.dequantize()).sum())
    assert kept > 400 * 300 * 4 / 2


MODULES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3)), (4, 6)),
    "conv": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 2)), (4, 2, 6, 6)),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), (3, 5, 8)),
    "lstm": (lambda: nn.LSTM(6, 4, num_layers=2, bidirectional=True), (5, 3, 6)),
    "gru": (lambda: nn.GRU(6, 4, batch_first=True), (3, 5, 6)),
    "lstm cell": (lambda: nn.LSTMCell(6, 4), (3, 6)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), (3, 6)),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_modules_compute_as_their_unwrapped_twins(name, training):
    torch.manual_seed(0)
    make, shape = MODULES[name]
    ours = lognet.wrap(make().train(training))
    theirs = lognet.unwrap(copy.deepcopy(ours))
    x = torch.randn(shape)
    outs = [m(x) for m in (ours, theirs)]
    outs = [o[0] if isinstance(o, tuple) else o for o in outs]
    torch.testing.assert_close(*outs)
    with torch.no_grad():
        out = ours(x)
        torch.testing.assert_close(out[0] if isinstance(out, tuple) else out, outs[1].detach(), rtol=1e-4, atol=1e-4)
    for out in outs:
        out.square().sum().backward()
    for (n, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=lambda m, n=n: f"{n}: {m}", rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_its_dtype_and_gives_gradients_in_the_parameters(dtype):
    torch.manual_seed(0)
    model = lognet.wrap(nn.Sequential(nn.Conv1d(3, 4, 3), nn.Flatten(), nn.Linear(24, 5)))
    with torch.autocast("cpu", dtype=dtype):
        out = model(torch.randn(2, 3, 8))
    assert out.dtype == dtype
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_models(dtype):
    model = lognet.wrap(nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 4)).to(dtype))
    model(torch.randn(2, 6, dtype=dtype)).sum().backward()
    assert all(p.grad.dtype == dtype for p in model.parameters())


def test_gradients_accumulate_and_are_zeroed():
    model = lognet.wrap(nn.Linear(3, 2))
    x = torch.ones(1, 3)
    for _ in range(2):
        model(x).sum().backward()
    assert (model.weight.grad == 2).all()
    model.zero_grad()
    assert model.weight.grad is None


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant):
    model = lognet.wrap(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)))
    x = torch.randn(2, 6, requires_grad=True)
    torch.utils.checkpoint.checkpoint(model, x, use_reentrant=reentrant).sum().backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(x).sum().backward()
    for p, g in zip(model.parameters(), grads, strict=True):
        torch.testing.assert_close(p.grad, g)


def test_functional_call():
    model = lognet.wrap(nn.Linear(3, 2))
    other = {k: LogTensor.from_float(torch.full_like(v.dequantize(), 0.5)) for k, v in model.named_parameters()}
    assert torch.equal(torch.func.functional_call(model, other, torch.ones(1, 3)), torch.full((1, 2), 2.0))


def test_embedding_errors():
    w = LogTensor.from_float(torch.randn(6, 4))
    with pytest.raises(ValueError, match="sparse=True is not supported"):
        F.embedding(INDEX, w, sparse=True)
    with pytest.raises(IndexError, match="must lie in 0 .. 5"):
        F.embedding(torch.tensor([6]), w)
    with pytest.raises(ValueError, match="padding_idx must lie within num_embeddings=6, got 9"):
        F.embedding(INDEX, w, padding_idx=9)


def test_embedding_max_norm_writes_back():
    w = nn.Parameter(LogTensor.from_float(torch.randn(6, 4), bits=12))
    out = F.embedding(INDEX, w, max_norm=0.5)
    assert (out.norm(dim=-1) < 0.502).all()
    assert (w[4].norm() > 0.5) == (w.detach().dequantize()[4].norm() > 0.5)


def test_products_take_the_keywords_of_torch():
    """Each against torch's own product of its kind, because mm and bmm may sum in different orders."""
    w, x = LogTensor.from_float(torch.randn(4, 6)), torch.randn(2, 4)
    dense = w.dequantize()
    assert torch.equal(torch.mm(x, mat2=w), torch.mm(x, mat2=dense))
    assert torch.equal(torch.bmm(input=x[None], mat2=w[None]), torch.bmm(input=x[None], mat2=dense[None]))
    for product in (torch.mm, torch.matmul):
        out = torch.empty(2, 6)
        assert product(x, w, out=out) is out
        assert torch.equal(out, product(x, dense))
    for product, wrong in ((torch.mm, x[None]), (torch.bmm, x)):
        with pytest.raises(RuntimeError, match="must be"):
            product(wrong, w)


@pytest.mark.parametrize(("inside", "outside"), [(0, 3), (4, 0)])
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_linear_layers_without_features(inside, outside):
    weight = nn.Parameter(LogTensor.from_float(torch.zeros(outside, inside), scale=1.0))
    x = torch.randn(5, 2, inside, requires_grad=True)
    F.linear(x, weight).sum().backward()
    assert weight.grad.shape == (outside, inside)
    assert x.grad.shape == (5, 2, inside)


def test_words_for_what_torch_would_not_take_either():
    with pytest.raises(ValueError, match="padding must be numbers, 'same' or 'valid', got 'full'"):
        F.conv1d(torch.randn(1, 2, 5), LogTensor.from_float(torch.randn(3, 2, 3)), padding="full")
    with pytest.raises(TypeError, match="indices must be int32 or int64, got torch.float32"):
        F.embedding(torch.tensor([1.5]), LogTensor.from_float(torch.randn(5, 3)))
    with pytest.raises(ValueError, match="weight must be two-dimensional"):
        F.embedding(torch.tensor([1]), LogTensor.from_float(torch.randn(5)))


# recomputed: any function of LogTensors, run again in the backward pass


def two_factors(x, bias, a, b):
    y = F.linear(x, torch.kron(a, b), bias)
    return y, y.square().sum(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("with_bias", [True, False])
def test_recomputed_as_its_dequantised_twin(with_bias, dtype):
    logs = [nn.Parameter(LogTensor.from_float(randn(2, 3, seed=i, dtype=dtype), bits=10)) for i in range(2)]
    twins = [w.detach().dequantize().requires_grad_() for w in logs]
    x = [randn(4, 9, dtype=dtype).requires_grad_() for _ in range(2)]
    bias = [randn(4, seed=5, dtype=dtype).requires_grad_() if with_bias else None for _ in range(2)]
    ours, theirs = recomputed(two_factors, x[0], bias[0], *logs), two_factors(x[1], bias[1], *twins)
    torch.testing.assert_close(ours, theirs)
    inputs = [[x[i], *([bias[i]] if with_bias else []), *w] for i, w in enumerate((logs, twins))]
    results = []
    for out, leaves in zip((ours, theirs), inputs, strict=True):
        loss = out[0].pow(3).sum() + out[1].sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        assert all(type(g) is torch.Tensor for g in first)
        results.append((first, torch.autograd.grad(sum(g.square().sum() for g in first), leaves)))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_recomputed_uses_one_output_of_two():
    a, b = (nn.Parameter(LogTensor.from_float(randn(2, 3, seed=i))) for i in range(2))
    recomputed(two_factors, randn(4, 9), None, a, b)[1].sum().backward()
    assert a.grad.abs().sum() > 0


def test_recomputed_without_log_tensors_is_the_plain_call():
    seen = []
    assert recomputed(lambda a, b: seen.append((a, b)), 1, None) is None
    assert seen == [(1, None)]


def test_recomputed_counts_an_input_made_from_another_once():
    w, log = randn(3).requires_grad_(), nn.Parameter(LogTensor.from_float(randn(3, seed=1)))
    for create_graph in (False, True):
        ours = recomputed(lambda x, w, log: (x * w * log).sum(), 2 * w, w, log)
        theirs = (2 * w * w * log.dequantize()).sum()
        torch.testing.assert_close(
            torch.autograd.grad(ours, (w, log), create_graph=create_graph), torch.autograd.grad(theirs, (w, log))
        )


def test_recomputed_keeps_codes_and_runs_again_under_the_same_autocast():
    a, b = (nn.Parameter(LogTensor.from_float(torch.randn(20, 20))) for _ in range(2))
    x, dtypes = torch.randn(2, 400), []

    def function(x, a, b):
        y = F.linear(x, torch.kron(a, b))
        dtypes.append(y.dtype)
        return y

    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept, out = saved_bytes(lambda: recomputed(function, x, a, b))
    assert kept == 2 * 400 * 4
    out.float().sum().backward()
    assert dtypes == [torch.bfloat16] * 2
    assert a.grad.dtype == torch.float32


def test_recomputed_notices_a_write_in_between():
    a = nn.Parameter(LogTensor.from_float(randn(3)))
    loss = recomputed(lambda a: a.square().sum(), a)
    with torch.no_grad():
        a.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("back_end", ["reference", kernels.backend()])
@pytest.mark.parametrize("columns", [5, 16])
@pytest.mark.parametrize("count", [0, 1, 6, 30, 90])
def test_embedding_of_one_row_of_a_few_of_many_and_of_more_than_there_are(count, columns, back_end, dtype):
    index = torch.randint(40, (count, 1), generator=torch.Generator().manual_seed(count))
    plain = LogTensor.from_float(torch.randn(40, columns, dtype=dtype))
    masked = LogTensor.from_float(torch.randn(40, columns, dtype=dtype)).set_mask_(torch.rand(40, columns) < 0.5)
    with kernels.use(back_end):
        for w in (plain, masked, plain[3:].expand(37, columns)):
            rows = index.clamp(max=w.shape[0] - 1)
            for of in (rows, rows.int(), rows.expand(count, 2)):
                assert torch.equal(F.embedding(of, w), F.embedding(of, w.dequantize()))


@pytest.mark.parametrize("bits", [3, 8, 10])
def test_embedding_looks_up_views(bits):
    w = LogTensor.from_float(torch.randn(7, 6), bits=bits)
    index = torch.tensor([[0, 2], [3, 3]])
    for view in (lambda w: w[2:], lambda w: w[1:, 2:5], lambda w: w.T, lambda w: w[:, 1:].T):
        assert torch.equal(F.embedding(index, view(w)), F.embedding(index, view(w.dequantize())))
