"""Handwritten digits on several processes, with torch's own engines. A second run resumes from the checkpoint.

    torchrun --nproc-per-node 2 examples/distributed.py                  # FSDP2: each process holds a part of the weights
    torchrun --nproc-per-node 2 examples/distributed.py --engine ddp     # each holds all of them

The number of processes and the engine may change from one run to the next: checkpoints do not depend on them.
docs/distributed.md has the recipes.
"""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import lognet
from lognet.optim import Madam
from lognet.sweep import load_digits

BATCH = 64


def build(engine, bits, device):
    """The model and its optimizer. All processes seed, build and wrap alike, so they start from the same weights."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    model = lognet.wrap(model, bits=bits).to(device)
    if engine == "ddp":
        model = DistributedDataParallel(model)
    else:
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for layer in model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model, Madam(model.parameters())


def newest(folder):
    """The number of steps of the newest complete checkpoint. Its .metadata is written last."""
    return max((int(path.parent.name) for path in Path(folder).glob("*/.metadata")), default=0)


def train(engine="fsdp", bits=8, steps=300, every=100, folder="checkpoints", stop=None, device="cpu"):
    """Train or resume up to `steps`; `stop` ends earlier, like a crash. Returns the model and its accuracy."""
    device, rank, world = torch.device(device), dist.get_rank(), dist.get_world_size()
    digits = load_digits()
    model, optimizer = build(engine, bits, device)
    done = newest(folder)
    if done:
        weights, state = get_state_dict(model, optimizer)
        dcp.load({"model": weights, "optimizer": state}, checkpoint_id=f"{folder}/{done}")
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
        if rank == 0:
            print(f"going on from step {done}")
    for step in range(done, steps if stop is None else stop):
        batch = torch.randint(len(digits.train_x), (BATCH,), generator=torch.Generator().manual_seed(step))
        own = batch[rank::world]  # this process's share; the batch is the same for any number of processes
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * (1 - step / steps)
        optimizer.zero_grad()
        F.cross_entropy(model(digits.train_x[own].to(device)), digits.train_y[own].to(device)).backward()
        optimizer.step()
        if (step + 1) % every == 0:
            weights, state = get_state_dict(model, optimizer)
            dcp.save({"model": weights, "optimizer": state}, checkpoint_id=f"{folder}/{step + 1}")
    with torch.no_grad():
        right = model(digits.test_x.to(device)).argmax(1) == digits.test_y.to(device)
    return model, 100 * float(right.float().mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["fsdp", "ddp"], default="fsdp")
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--folder", default="checkpoints", help="of the checkpoints")
    options = vars(parser.parse_args())
    if torch.cuda.is_available():
        options["device"] = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(options["device"])
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    _, accuracy = train(**options)
    if dist.get_rank() == 0:
        print(f"{options['bits']} bits, {options['engine']} on {dist.get_world_size()} processes: {accuracy:.2f}%")
    dist.barrier()
    dist.destroy_process_group()
