"""The words that name networks: read, written, ordered, built; and what is refused."""

import pytest
import torch

import lognet
from lognet.nn import KroneckerLinear, LowRankEmbedding, LowRankLinear, PHMLinear, Word2KetXSEmbedding
from lognet.sweep import SweepError
from lognet.sweep.cli import main
from lognet.sweep.plan import contenders, display_order, find_task, is_task, load, plan
from lognet.sweep.train import build, make_optimizer
from lognet.sweep.variants import Variant

WORDS = ["R", "R@32", "R@64x1", "C", "H", "M2R@128", "PHM2", "PHM8@64x1", "K16", "K4+XS4", "L16@96+L8", "R+XS1"]


@pytest.fixture(scope="module")
def text():
    return load("text", None)


def run_of(data, word, precision="fp32", seed=0):
    name = "text" if word == "R" else f"text/{word}"
    return plan([name], [contenders([precision])[-1]], [seed], {"text": data}, {}, 2)[0]


@pytest.mark.parametrize("word", WORDS)
def test_words_are_read_and_written(word):
    assert str(Variant.parse(word)) == word
    assert is_task("text" if word == "R" else f"text/{word}")


@pytest.mark.parametrize(
    "word", ["", "Q", "r", "PHM", "PHM0", "PHM04", "K", "K-1", "R4", "R@", "R@0", "R@32x", "Rx1", "K4+", "K4+PHM2",
             "K4+XS", "H2", "R@99999", "K٤", "R\n"],
)  # fmt: skip
def test_other_words_are_refused(word):
    with pytest.raises(SweepError, match=r"unknown model .*; a model is LAYERS"):
        Variant.parse(word)
    assert not is_task(f"text/{word}")


def test_names_have_one_spelling():
    assert not is_task("text/R")
    assert not is_task("text/K4/K4")
    assert not is_task("mnist")
    with pytest.raises(SweepError, match="it is 'text'"):
        find_task("text/R")


def test_what_is_plain_and_in_which_order():
    assert [w for w in WORDS if Variant.parse(w).plain] == ["R", "R@32", "R@64x1"]
    words = ["L4", "K4+XS4", "R@64x1", "K16", "PHM8", "R+XS4", "R@32", "PHM2", "H", "K4", "R", "C", "R@64"]
    words.sort(key=lambda w: display_order("text" if w == "R" else f"text/{w}"))
    assert words == ["R", "R@64", "R@64x1", "R@32", "R+XS4", "C", "H", "PHM2", "PHM8", "K16", "K4", "K4+XS4", "L4"]


def test_titles():
    assert Variant.parse("H").title == "over H"
    assert Variant.parse("PHM4@64x1+XS2").title == "PHM n = 4, width 64, 1 layer, word2ketXS tables of rank 2"


def test_networks_are_what_they_are_called(text):
    plain, narrow, shallow = (build(run_of(text, w), text) for w in ("R", "R@32", "R@64x1"))
    assert narrow.head.in_features == 32
    assert (len(plain.blocks), len(shallow.blocks)) == (2, 1)
    phm, xs, low = (build(run_of(text, w), text) for w in ("PHM4", "K4+XS2", "L3+L5"))
    assert [type(block.up) for block in phm.blocks] == [PHMLinear] * 2
    assert {block.qkv.n for block in phm.blocks} == {4}
    assert type(phm.head) is torch.nn.Linear
    assert type(phm.symbol) is torch.nn.Embedding
    assert type(xs.blocks[0].qkv) is type(xs.head) is KroneckerLinear
    assert (xs.blocks[0].qkv.rank, xs.head.rank) == (4, 2)
    assert type(xs.symbol) is type(xs.position) is Word2KetXSEmbedding
    assert (xs.symbol.order, xs.symbol.rank) == (2, 2)
    assert (type(low.blocks[1].down), type(low.head), type(low.position)) == (
        LowRankLinear,
        LowRankLinear,
        LowRankEmbedding,
    )
    assert (low.blocks[1].down.rank, low.head.rank) == (3, 5)


@pytest.mark.parametrize("word", ["PHM4", "K4+XS4", "L8+L8"])
def test_factored_networks_start_like_plain_ones(text, word):
    """Every matrix has about the size of the one it replaces, also on a ladder, and nothing starts at zero."""
    plain, run = build(run_of(text, "R"), text), run_of(text, word, "8")
    net = build(run, text)
    make_optimizer(run, net)
    assert all(isinstance(p, lognet.LogTensor) for p in net.parameters())
    for name in ("symbol", "blocks.0.qkv", "blocks.1.down", "head"):
        size = net.get_submodule(name).weight.detach().square().mean().sqrt()
        expected = plain.get_submodule(name).weight.detach().square().mean().sqrt()
        assert 0.5 * expected < size < 2 * expected, name


def test_the_same_seed_gives_the_same_network(text):
    first, second, other = (build(run_of(text, "K2+XS2", seed=s), text).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(first["head.A"], other["head.A"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks", "digits", "--model", "PHM4"], "model PHM4: this network has no parts to factorise"),
        (["--tasks", "digits", "--model", "R+XS4"], "model R+XS4: this network has no parts to factorise"),
        (["--tasks", "digits", "--model", "R@32x1"], "model R@32x1: this network has no depth to choose; leave x1 out"),
        (["--tasks", "text", "--model", "R", "PHM3"], "the model of text/PHM3 cannot be built: layer blocks.0.qkv: n=3 must"),
        (["--tasks", "text", "--model", "R@30"], "text/R@30 cannot be built: width=30 must be a multiple of heads=4; use 32"),
        (["--tasks", "text", "--model", "M3R@64"], "model M3R@64: this width is not one of whole tuples; use @72"),
        (["--model", "K0"], "unknown model 'K0'; a model is LAYERS[@WIDTH[xDEPTH]][+TABLES], LAYERS being R, C,"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_are_refused_before_anything_is_written(capsys, tmp_path, words, said):
    assert main([*words, "--out", str(tmp_path / "sweep")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
