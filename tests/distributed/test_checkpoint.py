"""torch.distributed.checkpoint of wrapped models and of Madam: saved on some ranks, loaded on others, exactly."""

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import lognet
from lognet import LogTensor
from lognet.optim import Madam

# torch 2.6's fully_shard fails on CPUs, of an nn.Linear too: its streams there have no events
pytestmark = pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="this torch has no FSDP2 on CPUs")

STEPS = 3


def net(bits=8, seed=0):
    """Rows that no number of ranks divides, of lengths at which bits of signs share bytes; a mask; a float norm."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Embedding(11, 7, padding_idx=0), nn.Linear(7, 13), nn.LayerNorm(13), nn.Tanh(), nn.Linear(13, 3)
    )
    return lognet.wrap(model, bits=bits, exclude=nn.LayerNorm)


def sharded(model):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(model[1], mesh=mesh)
    return fully_shard(model, mesh=mesh)


def train(model, optimizer, steps):
    g = torch.Generator().manual_seed(3)
    x, y = torch.randint(11, (8,), generator=g), torch.randint(3, (8,), generator=g)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def whole(t):
    t = t.full_tensor() if isinstance(t, DTensor) else t
    return (t.exponent, t.signs, t.scale, t.mask) if isinstance(t, LogTensor) else (torch.as_tensor(t),)


def everything(model, optimizer):
    """Weights and state, exactly and whole."""
    result = {name: whole(p.detach()) for name, p in model.named_parameters()}
    for (name, _), state in zip(model.named_parameters(), optimizer.state.values(), strict=True):
        result |= {f"{name}.{key}": whole(value) for key, value in state.items()}
    return result


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert all(x is y or torch.equal(x, y) for x, y in zip(a[name], b[name], strict=True)), name


def after(steps, bits=8):
    """What one process that knows nothing of checkpoints has after so many steps."""
    model = net(bits)
    optimizer = Madam(model.parameters(), warmup=2)
    train(model, optimizer, steps)
    return everything(model, optimizer)


def save_on_ranks(folder, bits):
    model = sharded(net(bits))
    optimizer = Madam(model.parameters(), warmup=2)
    train(model, optimizer, STEPS)
    weights, state = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder)
    return everything(model, optimizer)


def load_on_ranks(folder, bits, engine, steps):
    """Into a model of other weights and other scales, and on from there."""
    model = net(bits, seed=5)
    if engine:
        model = sharded(model)
        train(model, Madam(model.parameters()), 1)  # FSDP2 replaces local tensors when it first runs
        model.zero_grad()
    optimizer = Madam(model.parameters(), warmup=2)
    weights, state = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": state}, checkpoint_id=folder)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
    train(model, optimizer, steps)
    return everything(model, optimizer)


@pytest.mark.parametrize("bits", [8, 10])
def test_resharding_is_exact_and_training_goes_on(ranks, bits, tmp_path):
    for result in ranks(save_on_ranks, str(tmp_path), bits):
        assert_same(result, after(STEPS, bits))
    for world in (1, 2, 4):
        for result in ranks(load_on_ranks, str(tmp_path), bits, True, 2, world=world):
            assert_same(result, after(STEPS + 2, bits))
    (result,) = ranks(load_on_ranks, str(tmp_path), bits, False, 2, world=1)  # no FSDP2 at all
    assert_same(result, after(STEPS + 2, bits))


def save_without_engine_on_ranks(folder):
    model = net()
    optimizer = Madam(model.parameters(), warmup=2)
    train(model, optimizer, STEPS)
    weights, state = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder)


def test_from_one_process_to_many(ranks, tmp_path):
    ranks(save_without_engine_on_ranks, str(tmp_path), world=1)
    for result in ranks(load_on_ranks, str(tmp_path), 8, True, 2, world=4):
        assert_same(result, after(STEPS + 2))


def load_other_ladder_on_ranks(folder):
    weights = get_model_state_dict(sharded(net(bits=10)))
    with pytest.raises(dcp.api.CheckpointException, match="the ladders differ"):
        dcp.load({"model": weights}, checkpoint_id=folder)
    floats = sharded(lognet.unwrap(net(seed=5)))
    weights = get_model_state_dict(floats)
    dcp.load({"model": weights}, checkpoint_id=folder)
    return {name: t.full_tensor() for name, t in weights.items()}


def test_another_ladder_is_refused_and_floats_take_the_values(ranks, tmp_path):
    ranks(save_on_ranks, str(tmp_path), 8)
    model = net()
    train(model, Madam(model.parameters(), warmup=2), STEPS)
    for result in ranks(load_other_ladder_on_ranks, str(tmp_path)):
        for name, p in model.named_parameters():
            assert torch.equal(result[name], p.detach().dequantize() if isinstance(p, LogTensor) else p)


def full_on_ranks(rank_0):
    """To whole state dicts, and from them into a model of other weights; with `rank_0`, only this rank has them."""
    model = sharded(net())
    optimizer = Madam(model.parameters(), warmup=2)
    train(model, optimizer, STEPS)
    options = StateDictOptions(full_state_dict=True, cpu_offload=rank_0, broadcast_from_rank0=rank_0)
    weights = get_model_state_dict(model, options=options)
    state = get_optimizer_state_dict(model, optimizer, options=options)
    if not rank_0 or dist.get_rank() == 0:
        assert type(weights["1.weight"]) is LogTensor
    other = sharded(net(seed=0 if rank_0 else 5))
    fresh = Madam(other.parameters(), warmup=2)
    set_model_state_dict(other, weights, options=options)
    set_optimizer_state_dict(other, fresh, state, options=options)
    train(other, fresh, 2)
    return everything(other, fresh)


@pytest.mark.parametrize("rank_0", [False, True])
def test_full_state_dicts(ranks, rank_0):
    for result in ranks(full_on_ranks, rank_0):
        assert_same(result, after(STEPS + 2))


def async_on_ranks(folder):
    model = sharded(net())
    optimizer = Madam(model.parameters(), warmup=2)
    train(model, optimizer, STEPS)
    weights, state = get_state_dict(model, optimizer)
    group = dist.new_group(backend="gloo")  # its own: collectives of training go on beside it
    saving = dcp.async_save({"model": weights, "optimizer": state}, checkpoint_id=folder, process_group=group)
    train(model, optimizer, 1)
    saving.result()


def test_saving_in_the_background(ranks, tmp_path):
    ranks(async_on_ranks, str(tmp_path))
    for result in ranks(load_on_ranks, str(tmp_path), 8, True, 2):
        assert_same(result, after(STEPS + 2))
