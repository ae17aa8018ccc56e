"""Code of a user who checks types strictly; `tests/test_packaging.py` has mypy read it against the installed wheel."""

from pathlib import Path

import torch
from torch import Tensor, nn

import lognet
from lognet import PHM, Kronecker, LogFormat, LogTensor, algebraize, flops
from lognet.convert import prune
from lognet.models import CifarResNet
from lognet.nn import Algebra, AlgebraLinear, PHMLinear, TiedOutput, kronecker_sum
from lognet.optim import Madam, theory
from lognet.quant import default_base_precision
from lognet.sweep import Dataset, epoch_order, load_digits, stream


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = AlgebraLinear(16, 32, algebra="H")
        self.second: nn.Module = PHMLinear(32, 4, n=4, bits=8)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.second(torch.relu(self.first(x)))
        return scores


def train(model: nn.Module, x: Tensor, y: Tensor, file: Path) -> float:
    wrapped: nn.Module = lognet.wrap(model, bits=8, exclude=[nn.LayerNorm, "*.bias"], bits_for={"first.*": 12})
    optimizer = Madam(wrapped.parameters(), lr=0.1, state_bits=8)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1)
    loss = torch.zeros(())
    for chosen in epoch_order(len(x), 8, stream("digits", 0, "order")):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(wrapped(x[chosen]), y[chosen])
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        scheduler.step()
    again: float = optimizer.step(lambda: float(loss))
    held: int = lognet.held_bytes(wrapped, optimizer)
    lognet.save(wrapped, file, sign_seed=None)
    restored: nn.Module = lognet.load(wrapped, str(file))
    share: float = lognet.summary(restored, optimizer).weight_bytes / held
    lognet.unwrap(lognet.requantize(restored, bits=10, include=nn.Linear))
    return again + share


def shrink(model: nn.Module) -> tuple[nn.Module, int]:
    smaller, report = lognet.compress(model, {nn.Embedding: Kronecker(rank=4), "head.*": PHM(n=4), "*": None})
    after: int = report.after
    return algebraize(smaller, Algebra.of("M2R"), exclude="head")[0], after


def tensors() -> Tensor:
    weight: LogTensor = LogTensor.from_float(torch.ones(3, 3), bits=8)
    ladder: LogFormat = weight.format
    bits: int = ladder.bits
    spacing: float = default_base_precision(bits)
    dense: Tensor = weight.dequantize()
    return kronecker_sum(dense.unsqueeze(0), dense.unsqueeze(0)) * spacing * theory.largest_lr(depth=3)


def count(table: nn.Module) -> int:
    data: Dataset = load_digits()
    pruner = prune.Pruner(CifarResNet("H"), prune.ZhuGupta(0.5, steps=100))
    pruner.step()
    return flops(TiedOutput(table), data.train_x).total
