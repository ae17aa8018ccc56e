"""Section 4.3.1 of the Shapeshifter thesis, as examples/kronecker_expressiveness.py shows it."""

import importlib.util
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).resolve().parents[2] / "examples" / "kronecker_expressiveness.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("kronecker_expressiveness", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("m", [2, 5, 8])
def test_one_term_can_be_orthogonal(example, m):
    parameters, rank, distance = example.one_term_is_orthogonal(m)
    assert parameters == 2 * m * m
    assert rank == m * m
    assert distance < 1e-13


def test_stacked_low_rank_stays_at_its_rank(example):
    for _, low, kronecker in example.ranks_of_stacks(4, (1, 2, 5)):
        assert low == 1
        assert kronecker == 16


@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("angle", [0.3, -2.0, 1.5707963267948966])
def test_theorem_2_on_every_plane(example, m, angle):
    one, three, worst = example.every_givens_rotation(m, angle)
    assert one == m * m * (m - 1)  # planes that share a block or a place within it
    assert one + three == m * m * (m * m - 1) // 2
    assert worst < 1e-13


def test_depth_is_needed(example):
    g = example.givens(16, 1, 6, 0.7)
    found = example.nearest_kronecker_sum(g, (4, 4, 4, 4), 2)
    assert (example.kronecker_sum(*found) - g).norm() > 0.1


@pytest.mark.parametrize("m", [2, 3])
def test_any_rotation_is_a_product_of_layers(example, m):
    n = m * m
    count, worst = example.orthogonal_from_layers(m)
    assert count <= 3 * n * (n - 1) / 2
    assert worst < 1e-12


def test_it_runs(example, capsys):
    with torch.random.fork_rng():
        example.main()
    assert capsys.readouterr().out.count("\n") == 9
