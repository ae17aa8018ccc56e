"""The command line that all recipes share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

OPTIMIZERS = ("madam", "madam-paper", "adam", "sgd")
SCHEDULES = ("plateau", "milestones", "cosine", "inverse-sqrt", "constant")


def parse(
    description: str,
    argv: Sequence[str] | None,
    add: Callable[[argparse.ArgumentParser], None],
    defaults: Mapping[str, Any],
    tiny: Mapping[str, Any],
) -> argparse.Namespace:
    """The options of one run.

    Args:
        add: adds the options of the recipe.
        defaults, tiny: the recipe's values, which replace the common ones; `tiny` only with --tiny. Flags replace both.

    Raises:
        SystemExit: options that contradict each other, or that do not exist.
    """
    form = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=form, allow_abbrev=False)
    whole = _whole_number
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set, in its standard layout")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run: log, checkpoint, result")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="madam-paper", help="madam: lognet's defaults")
    parser.add_argument("--bits", choices=("none", "12", "10", "8"), default="none", help="width of every weight")
    parser.add_argument("--lr", type=float, help="instead of the recipe's (README.md)")
    parser.add_argument("--p-scale", type=float, help="madam-paper: sigma*/sigma, 1, 2 or 3; instead of 3")
    parser.add_argument("--schedule", choices=SCHEDULES, help="instead of the recipe's")
    parser.add_argument("--patience", type=whole, default=5, help="plateau: evaluations without a better loss")
    parser.add_argument("--batch", type=whole, help="of all processes together")
    parser.add_argument("--steps", type=whole, help="of the whole run, instead of --epochs")
    parser.add_argument("--epochs", type=whole)
    parser.add_argument("--limit-steps", type=whole, help="stop there: for trying the recipe out")
    parser.add_argument("--seed", type=_count, default=0)
    parser.add_argument("--amp", choices=("none", "bf16"), default="none")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--workers", type=_count, default=8, help="processes that read images")
    parser.add_argument("--log-every", type=whole, default=50, help="steps")
    parser.add_argument("--save-every", type=whole, default=1000, help="steps between checkpoints")
    parser.add_argument("--tiny", action="store_true", help="a small model and short run: for trying the recipe out")
    add(parser)
    parser.set_defaults(**defaults)
    if parser.parse_known_args(argv)[0].tiny:
        parser.set_defaults(**tiny)
    args = parser.parse_args(argv)
    args.bits = None if args.bits == "none" else int(args.bits)
    if args.bits is not None and not args.optimizer.startswith("madam"):
        parser.error(f"--bits {args.bits} is for madam and madam-paper: {args.optimizer}'s moves are lost on a ladder")
    if args.p_scale is not None and args.optimizer != "madam-paper":
        parser.error("--p-scale goes with --optimizer madam-paper")
    if not args.data.exists():
        parser.error(f"--data {args.data} does not exist")
    return args


def _whole_number(text: str, least: int = 1) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"must be {least} or more, got {value}")
    return value


def _count(text: str) -> int:
    return _whole_number(text, least=0)
