"""DistributedDataParallel over wrapped models, with real ranks."""

import copy
import math
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import lognet
from lognet import LogTensor
from lognet.optim import Madam
from lognet.quant import LogQuantizer

STEPS = 6


def net(bits=8, seed=0, dtype=torch.float32):
    """Wrapped weights and biases with a float norm and its buffers between them: what DDP sends at once is mixed."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 3)).to(dtype)
    return lognet.wrap(model, bits=bits, exclude="1").eval()  # statistics of a part of a batch are another computation


def data(dtype=torch.float32):
    g = torch.Generator().manual_seed(7)
    return torch.randn(12, 6, generator=g).to(dtype), torch.randint(3, (12,), generator=g)


def exact_net():
    """A layer whose weights are powers of two: on data of small integers every sum is exact, in whatever order."""
    g = torch.Generator().manual_seed(1)
    model = nn.Linear(6, 4)
    for name, p in list(model.named_parameters()):
        codes, signs = torch.randint(8, p.shape, generator=g), 1 - 2 * torch.randint(2, p.shape, generator=g)
        setattr(model, name, nn.Parameter(LogTensor.from_codes(codes, signs, 3, scale=1.0, base_precision=math.log(2))))
    return model


def exact_data():
    g = torch.Generator().manual_seed(2)
    return torch.randint(-2, 3, (8, 6), generator=g).float(), torch.randint(-2, 3, (8, 4), generator=g).float()


def state(model):
    """All there is to a model's weights, exactly."""
    return {
        name: (p.exponent, p.signs, p.scale) if isinstance(p, LogTensor) else (p.detach().clone(),)
        for name, p in model.named_parameters()
    }


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert all(torch.equal(x, y) for x, y in zip(a[name], b[name], strict=True)), name


def train(model, x, y, loss=F.cross_entropy, run=None):
    optimizer = Madam(model.parameters(), warmup=0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss((model if run is None else run)(x), y).backward()
        optimizer.step()
    return state(model)


# What ranks do


def exact_on_ranks(arguments):
    model, (x, y) = exact_net(), exact_data()
    rank, world = dist.get_rank(), dist.get_world_size()
    return train(model, x[rank::world], y[rank::world], F.mse_loss, DistributedDataParallel(model, **arguments))


def mixed_on_ranks(bits, dtype, compiled):
    model, (x, y) = net(bits, dtype=dtype), data(dtype)
    run = DistributedDataParallel(model)
    rank, world = dist.get_rank(), dist.get_world_size()
    if compiled:
        run = torch.compile(run)
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # Dynamo looks at all
    return train(model, x[rank::world], y[rank::world], run=run)


def other_weights_on_ranks():
    model = net(seed=dist.get_rank())
    if dist.get_rank() == 0:
        DistributedDataParallel(model)
        return ""
    try:
        DistributedDataParallel(model)
    except ValueError as error:
        return str(error)


def moved_weights_on_ranks(dtype):
    """Rank 1 differs from rank 0 in its codes, but not in its ladders."""
    model = net(dtype=dtype)
    if dist.get_rank() == 1:
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(0.5)
    DistributedDataParallel(model)
    return state(model)


# Tests


def quantized_on_ranks():
    """Gradients through attached quantizers: of this rank's samples alone, and as DDP averages them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 3))
    lognet.wrap(model, activation=LogQuantizer(4), gradient=LogQuantizer(3, rounding="stochastic", seed=5))
    x, gradients = data()[0][dist.get_rank() :: dist.get_world_size()], []
    for run in (copy.deepcopy(model), DistributedDataParallel(model)):
        run(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in run.parameters()])
    return gradients


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("arguments", [{}, {"gradient_as_bucket_view": True}, {"static_graph": True}], ids=str)
def test_training_equals_one_process_bit_for_bit_where_sums_are_exact(ranks, world, arguments):
    alone = train(exact_net(), *exact_data(), F.mse_loss)
    assert not torch.equal(alone["weight"][0], state(exact_net())["weight"][0])
    for result in ranks(exact_on_ranks, arguments, world=world):
        assert_same(result, alone)


@pytest.mark.parametrize(("bits", "dtype"), [(8, torch.float32), (10, torch.bfloat16), (4, torch.float64)])
def test_replicas_agree_bit_for_bit_and_follow_one_process(ranks, bits, dtype):
    first, *others = ranks(mixed_on_ranks, bits, dtype, False, world=3)
    for other in others:
        assert_same(first, other)
    alone, start = train(net(bits, dtype=dtype), *data(dtype)), state(net(bits, dtype=dtype))
    for name, (values, *_) in alone.items():  # gradients differ in their last bits: almost all codes are the same
        moved = (first[name][0].double() - start[name][0]).norm()
        assert (first[name][0].double() - values).norm() <= (0.3 if dtype == torch.bfloat16 else 0.1) * moved


@pytest.mark.slow
def test_compiled(ranks):
    plain, compiled = (ranks(mixed_on_ranks, 8, torch.float32, which)[0] for which in (False, True))
    start = state(net())
    for name, (values, *_) in plain.items():
        assert (compiled[name][0].double() - values).norm() <= 0.1 * (values.double() - start[name][0]).norm()


@pytest.mark.parametrize("world", [1, 2])
def test_quantized_activations_and_gradients(ranks, world):
    """The hooks and buckets of DDP leave the quantizers' own alone."""
    results = ranks(quantized_on_ranks, world=world)
    means = [torch.stack(parts).mean(0) for parts in zip(*(alone for alone, _ in results), strict=True)]
    for _, averaged in results:
        for mean, gradient in zip(means, averaged, strict=True):
            assert gradient.abs().sum() > 0
            torch.testing.assert_close(gradient, mean)


def test_weights_of_another_ladder_are_refused(ranks):
    assert "cannot take over the weights of another rank" in ranks(other_weights_on_ranks)[1]


def test_weights_on_the_same_ladder_are_taken_over(ranks):
    assert_same(*ranks(moved_weights_on_ranks, torch.float32))
