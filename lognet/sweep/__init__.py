"""The precision sweep: FP32 Adam, FP32 Madam and B-bit Madam, side by side on the same data in the same order.

``python -m lognet.sweep`` (or ``lognet sweep``) trains every contender on every task with every seed. It saves each
finished run at once, and ends with a table, ``results.json``, ``results.csv`` and ``report.html``.

The modules: `plan` defines what is compared, `data` and `models` the tasks. `train` trains one run. `worker` and
`runner` spread runs over processes. `results` keeps them, `summary` computes means, `figures` and `report` show them.

The data, the networks, the schedule and the random streams are public, for other comparisons on the same tasks.
"""

from .data import (
    CONTEXT,
    Dataset,
    crop_and_flip,
    epoch_order,
    load_cifar10,
    load_cifar100,
    load_digits,
    load_text,
    text_windows,
)
from .errors import SweepError
from .models import ConvNet, ResNet18, Transformer
from .train import schedule, stream

__all__ = [
    "CONTEXT",
    "ConvNet",
    "Dataset",
    "ResNet18",
    "SweepError",
    "Transformer",
    "crop_and_flip",
    "epoch_order",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_text",
    "schedule",
    "stream",
    "text_windows",
]
