"""The Python blocks of docs/algebra.md run, in order, as one program."""

import re
import runpy
from pathlib import Path

import torch

from lognet.nn import AlgebraLinear

GUIDE = Path(__file__).resolve().parents[2] / "docs/algebra.md"


def test_python_blocks_run(tmp_path):
    text = GUIDE.read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == text.count("```python") == 3
    script = tmp_path / "guide.py"
    script.write_text("\n".join(blocks))
    names = runpy.run_path(str(script))
    assert names["pruner"].sparsity()["1.weight"] == 0.5
    assert names["split"].is_associative


def test_every_python_name_of_the_guide_exists():
    import lognet

    text = GUIDE.read_text()
    for name in re.findall(r"`((?:Algebra|Tuple)\w+)`", text):
        assert hasattr(lognet.nn, name), name
    assert isinstance(AlgebraLinear(4, 4, algebra="H")(torch.ones(4)), torch.Tensor)
