"""Times of the factored layers as ratios to torch's dense ones, all in one interleaved run.

Run from a checkout: ``python -m benchmarks.kronecker_layers`` (half a minute; ``--write`` rewrites
docs/benchmarks-kronecker.md). The compared forms take turns in one process. Every ratio is the median over turns
of the ratio within a turn. So a busy machine slows both sides equally.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from lognet.nn import KroneckerLinear, LowRankLinear, PHMLinear, Word2KetXSEmbedding

CLOCKS = {
    "wall": (time.perf_counter, "the wall clock"),
    "cpu": (time.thread_time, "processor time, in which the machine's other work does not count"),
}
ROOT = Path(__file__).resolve().parents[1]
BATCHES = (1, 16, 256)


def turns(runs: dict[str, Callable[[], object]], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each run in each of many turns, after two turns that do not count.

    In a turn each runs five times and the fastest counts, because on a machine with other work the operating system
    interrupts a thread for longer than most of these runs take.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    clock = CLOCKS[arguments.clock][0]
    end = time.perf_counter() + arguments.seconds
    count = 0
    while count < 12 or time.perf_counter() < end:
        for name, run in runs.items():
            found = []
            for _ in range(5):
                start = clock()
                run()
                found.append(clock() - start)
            if count >= 2:
                times[name].append(min(found))
        count += 1
    return times


def ratio(times: dict[str, list[float]], name: str, to: str) -> float:
    return statistics.median(a / b for a, b in zip(times[name], times[to], strict=True))


def milliseconds(times: dict[str, list[float]], name: str) -> str:
    return f"{1000 * statistics.median(times[name]):.3f}"


def forms(make: Callable[[str], nn.Module]) -> dict[str, nn.Module]:
    layers = {impl: make(impl) for impl in ("auto", "materialize", "contract")}
    for layer in layers.values():
        layer.load_state_dict(layers["auto"].state_dict())
    return layers


LINEAR = {
    "PHM, n = 16": lambda impl: PHMLinear(1024, 1024, 16, impl=impl),
    "PHM, n = 4": lambda impl: PHMLinear(1024, 1024, 4, impl=impl),
    "Kronecker, rank 4": lambda impl: KroneckerLinear(1024, 1024, 4, impl=impl),
    "Kronecker, rank 16": lambda impl: KroneckerLinear(1024, 1024, 16, impl=impl),
    "low rank, rank 64": lambda impl: LowRankLinear(1024, 1024, 64, impl=impl),
}


@torch.no_grad()
def linear_table(arguments: argparse.Namespace) -> list[str]:
    lines = [
        "| layer | batch | `nn.Linear` ms | built ms | contracted ms | auto ms | auto : better form | auto : `nn.Linear` |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, make in LINEAR.items():
        layers, dense = forms(make), nn.Linear(1024, 1024)
        for batch in BATCHES:
            x = torch.randn(batch, 1024)
            modules = {"dense": dense, **layers}
            times = turns({key: partial(module, x) for key, module in modules.items()}, arguments)
            better = min(("materialize", "contract"), key=lambda form: statistics.median(times[form]))
            cells = [milliseconds(times, key) for key in ("dense", "materialize", "contract", "auto")]
            cells += [f"{ratio(times, 'auto', better):.2f}", f"{ratio(times, 'auto', 'dense'):.2f}"]
            lines.append(f"| {name} | {batch} | {' | '.join(cells)} |")
    return lines


@torch.no_grad()
def embedding_table(arguments: argparse.Namespace) -> list[str]:
    lines = [
        "| vocabulary | parameters | `nn.Embedding` ms | word2ketXS ms | ratio |",
        "|---|---|---|---|---|",
    ]
    for vocabulary in (118_655, 1_000_000):
        table = nn.Embedding(vocabulary, 300) if vocabulary < 200_000 else None
        factored = Word2KetXSEmbedding(vocabulary, 300, order=2, rank=2)
        index = torch.randint(vocabulary, (4096,))
        runs: dict[str, Callable[[], object]] = {"factored": partial(factored, index)}
        if table is not None:
            runs["dense"] = partial(table, index)
        times = turns(runs, arguments)
        dense = milliseconds(times, "dense") if table is not None else "-"
        against = f"{ratio(times, 'factored', 'dense'):.2f}" if table is not None else "-"
        count = sum(p.numel() for p in factored.parameters())
        lines.append(f"| {vocabulary:,} | {count:,} | {dense} | {milliseconds(times, 'factored')} | {against} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each comparison")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--write", action="store_true", help="rewrite docs/benchmarks-kronecker.md")
    arguments = parser.parse_args()
    if arguments.clock == "cpu" and arguments.threads != 1:
        parser.error("--clock cpu is the time of one thread: give --threads 1")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    text = "\n".join(
        [
            "# Factored layers: times",
            "",
            textwrap.fill(
                "Forward passes without gradients, float32, in and out 1,024 features. The times are medians over"
                " interleaved turns of one run of `python -m benchmarks.kronecker_layers`, threads:"
                f" {arguments.threads}, {platform.machine()}, PyTorch {torch.__version__}, by"
                f" {CLOCKS[arguments.clock][1]}. In a turn the fastest of five runs counts. A ratio is the median of the"
                " ratios within each turn, so it may differ from the ratio of the medians.",
                120,
            ),
            "",
            '"Built" computes the matrix at each call, "contracted" applies the factors one by one, and "auto" is the',
            "choice of the cost model (`lognet.nn.CostModel`).",
            "",
            *linear_table(arguments),
            "",
            "A lookup of 4,096 random words in a table of 300 columns, word2ketXS of order 2 and rank 2:",
            "",
            *embedding_table(arguments),
            "",
        ]
    )
    print(text)
    if arguments.write:
        (ROOT / "docs" / "benchmarks-kronecker.md").write_text(text)


if __name__ == "__main__":
    main()
