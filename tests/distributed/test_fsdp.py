"""FSDP2 (`torch.distributed.fsdp.fully_shard`) over wrapped models, with real ranks and shards of any size."""

import math
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.utils._python_dispatch import TorchDispatchMode

import lognet
from lognet import LogTensor
from lognet.optim import Madam

# torch 2.6's fully_shard fails on CPUs, of an nn.Linear too: its streams there have no events
pytestmark = pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="this torch has no FSDP2 on CPUs")

STEPS = 5


def net(bits=8, dtype=torch.float32):
    """Rows that no number of ranks divides, fewer rows than ranks, a masked embedding, a float norm."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(11, 7, padding_idx=0), nn.Linear(7, 13), nn.LayerNorm(13), nn.Tanh(), nn.Linear(13, 3)
    )
    return lognet.wrap(model.to(dtype), bits=bits, exclude=nn.LayerNorm)


def data():
    g = torch.Generator().manual_seed(3)
    return torch.randint(11, (8,), generator=g), torch.randint(3, (8,), generator=g)


def shard(model, **arguments):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model:
        if isinstance(layer, (nn.Linear, nn.Embedding)):
            fully_shard(layer, mesh=mesh, **arguments)
    return fully_shard(model, mesh=mesh, **arguments)


def codes(t):
    return (t.exponent, t.signs, t.scale, t.mask) if isinstance(t, LogTensor) else (t.detach().clone(),)


def state(model):
    """All there is to a model's weights, exactly and whole."""
    whole = {k: p.full_tensor() if isinstance(p, DTensor) else p for k, p in model.named_parameters()}
    return {k: codes(p.detach()) for k, p in whole.items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert all(x is y or torch.equal(x, y) for x, y in zip(a[name], b[name], strict=True)), name


def train(model, x, y, loss=F.cross_entropy, dtype=None, clip=None, **options):
    """Outputs of every step, the weights, and Madam's totals of what became of their moves."""
    optimizer = Madam(model.parameters(), **{"warmup": 2, **options})
    outputs = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        outputs.append(model(x if dtype is None else x.to(dtype)))
        loss(outputs[-1].float(), y).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    counts = [s["counts"] for s in optimizer.state.values() if "counts" in s]
    return torch.stack(outputs).detach(), state(model), counts


def assert_trained_alike(result, alone):
    assert torch.equal(result[0], alone[0])
    assert_same(result[1], alone[1])
    assert all(map(torch.equal, result[2], alone[2]))


# Every rank sees the whole batch: two or four equal gradients have themselves as their mean, so that nothing is rounded
# on the way that one process would not round.


def same_batch_on_ranks(bits, dtype, arguments, options):
    return train(shard(net(bits, dtype), **arguments), *data(), **options)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize(
    ("bits", "dtype", "arguments", "options"),
    [
        (8, torch.float32, {}, {}),
        (10, torch.bfloat16, {"reshard_after_forward": False}, {"foreach": True}),
        (5, torch.float64, {"offload_policy": CPUOffloadPolicy(pin_memory=False)}, {"affine": 0.0}),
        (12, torch.float32, {}, {"rounding": "nearest", "momentum": 0.0, "clip": 0.5}),
    ],
    ids=["8 bits", "10 bits", "5 bits", "12 bits"],
)
def test_a_sharded_step_is_that_of_the_whole(ranks, world, bits, dtype, arguments, options):
    alone = train(net(bits, dtype), *data(), **options)
    for result in ranks(same_batch_on_ranks, bits, dtype, arguments, options, world=world):
        if "clip" in options:  # the norm is summed in another order
            assert torch.allclose(result[0], alone[0], atol=1e-4)
        else:
            assert_trained_alike(result, alone)


def mixed_precision_on_ranks():
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model = shard(net(), mp_policy=policy)
    seen = []
    model[1].register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    _, weights, _ = train(model, *data())
    assert set(seen) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in model.parameters())
    return weights


def test_mixed_precision(ranks):
    first, second = ranks(mixed_precision_on_ranks)
    assert_same(first, second)
    start, alone = state(net()), train(net(), *data())[1]
    for name, (values, *_) in alone.items():
        moved = (values.double() - start[name][0]).norm()
        assert (first[name][0].double() - values).norm() <= 0.5 * moved


# Every rank sees its part of the batch.


def exact_net():
    """Two layers of weights that are powers of two: on small integers every sum is exact, in whatever order."""
    g = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    for layer in model:
        for name, p in list(layer.named_parameters()):
            codes, signs = torch.randint(8, p.shape, generator=g), 1 - 2 * torch.randint(2, p.shape, generator=g)
            weight = LogTensor.from_codes(codes, signs, 3, scale=1.0, base_precision=math.log(2))
            setattr(layer, name, nn.Parameter(weight))
    return model


def exact_data():
    g = torch.Generator().manual_seed(2)
    return torch.randint(-1, 2, (8, 6), generator=g).float(), torch.randint(-1, 2, (8, 3), generator=g).float()


def exact_on_ranks():
    x, y = exact_data()
    rank, world = dist.get_rank(), dist.get_world_size()
    _, weights, counts = train(shard(exact_net()), x[rank::world], y[rank::world], F.mse_loss)
    return weights, counts


@pytest.mark.parametrize("world", [2, 4])
def test_training_equals_one_process_bit_for_bit_where_sums_are_exact(ranks, world):
    _, weights, counts = train(exact_net(), *exact_data(), F.mse_loss)
    assert not torch.equal(weights["0.weight"][0], state(exact_net())["0.weight"][0])
    for result in ranks(exact_on_ranks, world=world):
        assert_same(result[0], weights)
        assert all(map(torch.equal, result[1], counts))


def replicated_on_ranks():
    """HSDP: two replicas of two shards each."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    x, y = exact_data()
    model = fully_shard(exact_net(), mesh=mesh)
    _, weights, counts = train(model, x[dist.get_rank() :: 4], y[dist.get_rank() :: 4], F.mse_loss)
    return weights, counts


def test_replicas_of_shards(ranks):
    _, weights, counts = train(exact_net(), *exact_data(), F.mse_loss)
    for result in ranks(replicated_on_ranks, world=4):
        assert_same(result[0], weights)
        assert all(map(torch.equal, result[1], counts))


def parts_on_ranks():
    x, y = data()
    rank, world = dist.get_rank(), dist.get_world_size()
    return train(shard(net()), x[rank::world], y[rank::world])[1]


def test_three_ranks_agree_and_follow_one_process(ranks):
    first, *others = ranks(parts_on_ranks, world=3)
    for other in others:
        assert_same(other, first)
    start = state(net())
    whole = net()  # with the mean over ranks of means over their parts, which are of three sizes: 3, 3 and 2
    optimizer, (x, y) = Madam(whole.parameters(), warmup=2), data()
    for _ in range(STEPS):
        optimizer.zero_grad()
        (sum(F.cross_entropy(whole(x[r::3]), y[r::3]) for r in range(3)) / 3).backward()
        optimizer.step()
    for name, (values, *_) in state(whole).items():
        assert (first[name][0].double() - values).norm() <= 0.1 * (values.double() - start[name][0]).norm()


# What travels


class Gathered(TorchDispatchMode):
    """The bytes that every rank has received when all-gathers are done."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.c10d._allgather_base_.default:
            self.total += args[0].numel() * args[0].element_size()
        return func(*args, **(kwargs or {}))


def bytes_on_ranks(bits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 133), nn.Tanh(), nn.Linear(133, 65))
    count = sum(p.numel() for p in model.parameters())
    model = shard(model if bits is None else lognet.wrap(model, bits=bits))
    with Gathered() as gathered:
        model(torch.ones(1, 64))
    return gathered.total / count


@pytest.mark.parametrize(("bits", "most"), [(4, 0.7), (8, 1.2), (12, 1.7)])
def test_codes_travel(ranks, bits, most):
    for world in (2, 3):
        measured = ranks(bytes_on_ranks, bits, world=world)
        assert all((bits + 1) / 8 < m <= most for m in measured), measured
    assert all(4 <= m < 4.2 for m in ranks(bytes_on_ranks, None))


# Trouble, on which all ranks must agree


def trouble_on_ranks(value):
    """The gradient of one row of one weight, which one rank alone holds, is not finite in the second step of three."""
    model, said = shard(net()), []
    optimizer = Madam(model.parameters(), warmup=0)
    x, y = data()
    for step in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        grad = model[1].weight.grad.to_local()
        if step == 1 and dist.get_rank() == dist.get_world_size() - 1:
            grad[-1, 0] = value
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer.step()
        said.append([str(w.message) for w in caught])
    return said, state(model), [float(s["step"]) for s in optimizer.state.values()]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_gradient_that_is_not_finite_on_one_rank_is_skipped_on_all(ranks, value):
    alone = net()
    optimizer, (x, y) = Madam(alone.parameters(), warmup=0), data()
    for step in range(3):
        optimizer.zero_grad()
        F.cross_entropy(alone(x), y).backward()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if step == 1:
                alone[1].weight.grad[-1, 0] = value
            optimizer.step()
    for said, weights, steps in ranks(trouble_on_ranks, value):
        assert [len(s) for s in said] == [0, 1, 0]
        assert "shape (13, 7) has a gradient with NaN" in said[1][0]
        assert_same(weights, state(alone))
        assert steps == [float(s["step"]) for s in optimizer.state.values()]


def other_seeds_on_ranks():
    torch.manual_seed(dist.get_rank())
    model = shard(lognet.wrap(nn.Sequential(nn.Linear(6, 4))))
    with pytest.raises(ValueError, match="different scales on different processes"):
        model(torch.ones(1, 6))


def refusals_on_ranks():
    mesh = init_device_mesh("cpu", (2,))
    with pytest.raises(NotImplementedError, match="over its first dimension only"):
        fully_shard(lognet.wrap(nn.Linear(8, 6)), mesh=mesh, shard_placement_fn=lambda p: Shard(p.dim() - 1))
    with pytest.raises(ValueError, match="state_bits must be 32"):
        Madam(shard(net()).parameters(), state_bits=8)
    for change in (lognet.wrap, lognet.unwrap, lambda m: lognet.requantize(m, bits=4)):
        with pytest.raises(ValueError, match="before fully_shard"):
            change(shard(net()))
    zeros = net()[1].weight.new_zeros(2, 3)  # to others it is what it says
    assert type(zeros) is torch.Tensor
    assert not zeros.any()
    assert not F.pad(net()[1].weight, (0, 0, 0, 1))[-1].any()


def test_ranks_that_start_from_other_weights_are_told(ranks):
    ranks(other_seeds_on_ranks)


def test_what_cannot_work_is_refused(ranks):
    ranks(refusals_on_ranks)


def meta_on_ranks():
    """Sharded before there are any values, as for models that no single process can hold."""
    model = shard(net().to("meta"))
    assert all(isinstance(p, DTensor) for p in model.parameters())
    model.to_empty(device="cpu")
    whole = {name: p.detach() for name, p in net().named_parameters()}
    set_model_state_dict(model, whole, options=StateDictOptions(full_state_dict=True))
    return train(model, *data())


def test_sharding_before_there_are_values(ranks):
    alone = train(net(), *data())
    for result in ranks(meta_on_ranks):
        assert_trained_alike(result, alone)
