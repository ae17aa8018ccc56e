"""FSDP2 (`torch.distributed.fsdp.fully_shard`) over wrapped models, with real ranks and shards of any size."""

import math

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

import lognet
from lognet import LogTensor
from lognet.optim import Madam

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


def train(model, x, y, **options):
    optimizer = Madam(model.parameters(), warmup=2, **options)
    outputs = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        outputs.append(model(x))
        F.cross_entropy(outputs[-1].float(), y).backward()
        optimizer.step()
    return torch.stack(outputs).detach(), state(model), [s["counts"] for s in optimizer.state.values() if "counts" in s]


def train_on_ranks(bits, dtype, arguments, options):
    return train(shard(net(bits, dtype), **arguments), *data(), **options)

@pytest.mark.parametrize("world", [1, 2, 4])
def test_a(ranks, world):
    alone = train(net(), *data())
    for outputs, weights, counts in ranks(train_on_ranks, 8, torch.float32, {}, {}, world=world):
        assert torch.equal(outputs, alone[0])
        assert_same(weights, alone[1])
        assert all(map(torch.equal, counts, alone[2]))
