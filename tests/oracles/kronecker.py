"""Kronecker sums written as the papers write them, entry by entry, and the checks that every factored layer passes."""

import copy
import itertools

import torch

import lognet
from lognet import LogTensor


def kronecker_sum(*factors):
    """sum_r F_1[r] (x) F_2[r] (x) ... by the definition of each entry; factors (rank, rows, columns)."""
    rows = list(itertools.product(*(range(f.shape[1]) for f in factors)))
    columns = list(itertools.product(*(range(f.shape[2]) for f in factors)))
    result = torch.zeros(len(rows), len(columns), dtype=factors[0].dtype)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            for r in range(factors[0].shape[0]):
                entry = torch.ones((), dtype=factors[0].dtype)
                for f, p, s in zip(factors, row, column, strict=True):
                    entry = entry * f[r, p, s]
                result[i, j] += entry
    return result


def r2d2(a, s):
    """H of R2D2's equations 2.3 and 2.4, literally. a: A_1 ... A_n, each (n, n); s: S_1 ... S_(d/n), each (n, k/n)."""

    def psi(x):
        return torch.cat(list(x)).reshape(-1, 1)

    segments = [torch.cat([psi(a_i @ s_j) for s_j in s], dim=1) for a_i in a]
    return torch.cat(segments, dim=1)


def dense_twin(module):
    """A copy of a module whose LogTensors are floats of the same values."""
    return lognet.unwrap(copy.deepcopy(module))


def saved_bytes(loss_of):
    """Bytes of dense floating tensors that the graph of a computation keeps, and its result."""
    kept = {}

    def pack(tensor):
        if not isinstance(tensor, LogTensor) and tensor.is_floating_point():
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = loss_of()
    return sum(kept.values()), loss


def check_log_twin(module, call, limit=None):
    """Check that a module of LogTensors computes and differentiates like its dequantised copy and keeps codes in its graph.

    `limit`: dense bytes that the graph may keep (inputs, activations); None does not check.
    """
    twin = dense_twin(module)
    kept, out = saved_bytes(lambda: call(module))
    expected = call(twin)
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if expected.dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(out, expected, **tolerance)
    cotangent = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    out.backward(cotangent)
    expected.backward(cotangent)
    named = dict(twin.named_parameters())
    for name, p in module.named_parameters():
        assert isinstance(p, LogTensor), name
        assert type(p.grad) is torch.Tensor, name
        torch.testing.assert_close(p.grad, named[name].grad, msg=lambda m, name=name: f"{name}: {m}", **tolerance)
    assert torch.equal(call(copy.deepcopy(module)), out)
    assert all(type(v) is LogTensor for v in module.state_dict().values() if v.is_floating_point())
    assert limit is None or kept <= limit, f"{kept} dense bytes kept, more than {limit}"


def check_layer(make, x, dense):
    """Compare a float64 layer with ``dense(x, its .weight, its .bias)``: values, all gradients, gradcheck, state, copies."""
    module = make(dtype=torch.float64)
    x = x.double().requires_grad_() if x.is_floating_point() else x
    inputs = [x] if x.is_floating_point() else []
    out = module(x)
    expected = dense(x, module.weight, getattr(module, "bias", None))
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    parameters = [*inputs, *module.parameters()]
    cotangent = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    ours = torch.autograd.grad(out, parameters, cotangent)
    theirs = torch.autograd.grad(expected, parameters, cotangent)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-11, atol=1e-11)
    names = [name for name, _ in module.named_parameters()]

    def function(*values):
        given = dict(zip(names, values[len(inputs) :], strict=True))
        return torch.func.functional_call(module, given, (values[0] if inputs else x,))

    assert torch.autograd.gradcheck(function, parameters)
    other = make(dtype=torch.float64)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x), out)
    assert torch.equal(copy.deepcopy(module)(x), out)
    for bits in (4, 8, 12):
        for dtype in (torch.float32, torch.float64):
            data = x.detach().to(dtype) if inputs else x
            check_log_twin(make(dtype=dtype, bits=bits), lambda m, data=data: m(data))
    check_log_twin(lognet.wrap(make(dtype=torch.float32)), lambda m: m(x.detach().float() if inputs else x))
    for dtype in (torch.float16, torch.bfloat16):
        half = make(dtype=dtype)
        result = half(x.detach().to(dtype) if inputs else x)
        assert result.dtype == dtype
        reference = copy.deepcopy(half).double()(x.detach().to(dtype).double() if inputs else x)
        scale = reference.abs().max().item() + 1
        tolerance = scale * (0.1 if dtype == torch.bfloat16 else 0.01)
        torch.testing.assert_close(result.double(), reference, rtol=0, atol=tolerance)
    return module


def compiled(module):
    """Run the module through torch.compile's tracing and autograd, without generating code."""
    torch._dynamo.reset()
    return torch.compile(module, backend="aot_eager", fullgraph=True)
