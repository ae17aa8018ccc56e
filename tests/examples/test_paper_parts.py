"""The parts that the recipes of examples/paper share, each against something obviously right."""

import argparse
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lognet.optim import Madam

RECIPES = Path(__file__).resolve().parents[2] / "examples" / "paper"
sys.path.insert(0, str(RECIPES))
from algebra_enwik8 import AlgebraEnwik8  # noqa: E402
from algebra_wikitext103 import AlgebraWikiText103  # noqa: E402
from common import checkpoint, enwik8, iwslt, wikitext  # noqa: E402
from common.frechet import Moments, frechet_distance  # noqa: E402
from common.imagefolder import ImageFolder  # noqa: E402
from common.loop import main  # noqa: E402
from common.optimizers import Schedule  # noqa: E402
from common.options import OPTIMIZERS, parse  # noqa: E402
from common.papers import ROWS  # noqa: E402
from common.place import Place  # noqa: E402
from common.rows import MadamRow  # noqa: E402
from common.translation import beam_search  # noqa: E402
from madam_cifar import MadamCifar  # noqa: E402

sys.path.remove(str(RECIPES))


def arguments(recipe, *options):
    options = [str(option) for option in options]
    return parse("", options, recipe.add_options, recipe.defaults, recipe.tiny)


# Data


def test_words_of_wikitext(tmp_path):
    for part, text in (("train", " a b \n = c = \n"), ("valid", " a z \n"), ("test", " <unk> b \n")):
        (tmp_path / f"wiki.{part}.tokens").write_text(text)
    (train, valid, test), count = wikitext.words(tmp_path)
    assert train.tolist() == [1, 2, 3, 4, 5, 4, 3]  # a b <eos> = c = <eos>
    assert valid.tolist() == [1, 0, 3]
    assert test.tolist() == [0, 2, 3]
    assert count == 6
    (tmp_path / "wiki.valid.tokens").unlink()
    with pytest.raises(SystemExit, match=r"lacks wiki\.valid\.tokens"):
        wikitext.words(tmp_path)


def test_characters_are_bytes(samples):
    parts = wikitext.characters(samples / "wikitext-103")
    for name, part in zip(("train", "valid", "test"), parts, strict=True):
        assert bytes(part.numpy()) == (samples / "wikitext-103" / f"wiki.{name}.tokens").read_bytes()
    text = (samples / "enwik8").read_bytes()
    train, valid, test = enwik8.characters(samples / "enwik8")
    assert len(valid) == len(test) == len(text) // 20
    assert b"".join(bytes(part.numpy()) for part in (train, valid, test)) == text
    assert torch.equal(enwik8.characters(samples)[0], train)  # the folder that holds the file does as well


def test_sentences_of_iwslt(samples, tmp_path):
    corpus = iwslt.Corpus(samples / "iwslt14")
    lines = (samples / "iwslt14" / "train.de").read_text().splitlines()
    assert [[corpus.tokens[i] for i in source] for source, _ in corpus.pairs["train"]] == [x.split() for x in lines]
    assert corpus.words([corpus.tokens.index("beau@@"), corpus.tokens.index("tiful"), iwslt.EOS]) == "beautiful"
    assert corpus.words([len(corpus.tokens) + 3]) == "<unk>"
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.de").write_text("a b\nc\n")
        (tmp_path / f"{part}.en").write_text("a b\n")
    with pytest.raises(SystemExit, match="train files of .* have 2 and 1 lines"):
        iwslt.Corpus(tmp_path)


def test_pictures_of_folders(samples, tmp_path):
    data = ImageFolder(samples / "imagenet" / "train", 16)
    assert (len(data), data.classes) == (8, ["n01440764", "n01443537"])
    for index in range(8):
        picture, label = data[index, 5]
        assert (picture.shape, picture.dtype, label) == ((3, 16, 16), torch.uint8, index // 4)
        assert torch.equal(data[index, 5][0], picture)  # the key alone decides
        assert not torch.equal(data[index, 6][0], picture)
    with pytest.raises(SystemExit, match="the same in train and val"):
        ImageFolder(samples / "imagenet" / "val", 16, ["n01440764"])
    with pytest.raises(SystemExit, match="there is no folder"):
        ImageFolder(tmp_path / "train", 16)


def test_the_middle_of_a_picture(tmp_path):
    (tmp_path / "a").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (256, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a" / "x.jpg", quality=95)
    decoded = np.array(Image.open(tmp_path / "a" / "x.jpg"))
    picture, _ = ImageFolder(tmp_path, 224)[0, None]
    assert np.array_equal(picture.permute(1, 2, 0).numpy(), decoded[16:240, 38:262])


def test_windows_of_two_processes_make_the_whole(samples, tmp_path):
    options = ("--data", samples / "wikitext-103", "--out", tmp_path, "--batch", 4, "--length", 8, "--tiny")
    args = arguments(AlgebraWikiText103, *options)
    read = lambda place: list(itertools.islice(AlgebraWikiText103(args, place).batches(3), 20))
    alone = read(Place(torch.device("cpu")))
    both = [read(Place(torch.device("cpu"), rank, 2)) for rank in (0, 1)]
    text = wikitext.characters(samples / "wikitext-103")[0]
    assert bytes(alone[0][0][0].to(torch.uint8).numpy()) == bytes(text[24:32].numpy())
    assert bytes(alone[0][1][0].to(torch.uint8).numpy()) == bytes(text[25:33].numpy())
    assert any(fresh for *_, fresh in alone)
    for (x, y, fresh), first, second in zip(alone, *both, strict=True):
        assert torch.equal(torch.stack([first[0], second[0]], 1).flatten(0, 1), x)
        assert torch.equal(torch.stack([first[1], second[1]], 1).flatten(0, 1), y)
        assert fresh == first[2] == second[2]
    with pytest.raises(SystemExit, match="must be a multiple of the 3 processes"):
        AlgebraWikiText103(args, Place(torch.device("cpu"), 0, 3))


def test_batches_of_pictures_do_not_depend_on_where_a_run_began(samples, tmp_path):
    args = arguments(MadamCifar, "--data", samples, "--out", tmp_path, "--tiny")
    recipe = MadamCifar(args, Place(torch.device("cpu")))
    whole = list(itertools.islice(recipe.batches(0), 25))
    late = list(itertools.islice(recipe.batches(7), 18))
    for (x, y), (x_late, y_late) in zip(whole[7:], late, strict=True):
        assert torch.equal(x, x_late)
        assert torch.equal(y, y_late)
    labels = torch.cat([y for _, y in whole[:10]])
    assert torch.equal(labels.sort().values, recipe.data.train_y.sort().values)  # an epoch has every picture once


# Figures


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(12))
def test_beam_search_against_all_sentences(alpha, seed):
    """With a beam for every open sentence it finds the best of all; scores depend on the whole prefix."""
    vocabulary, longest, beams, rows = 4, 4, 27, 1 + seed % 2
    draws = {}

    def scores_after(row, prefix):
        key = hash((seed, row, tuple(prefix))) % 2**31
        logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(key))
        logits[iwslt.EOS] = 3 * len(prefix) - 6 + logits[iwslt.EOS]  # early ends are dear, but not much dearer
        return draws.setdefault((row, tuple(prefix)), logits.log_softmax(0))

    def next_scores(prefixes):
        return torch.stack([scores_after(i // beams, p[1:]) for i, p in enumerate(prefixes.tolist())])

    found = beam_search(next_scores, rows, beams, alpha, longest, torch.device("cpu"))
    others = [token for token in range(vocabulary) if token != iwslt.EOS]
    for row in range(rows):
        best = (-math.inf, None)
        for length in range(longest):
            for words in itertools.product(others, repeat=length):
                ended = [*words, iwslt.EOS]
                total = sum(float(scores_after(row, ended[:i])[token]) for i, token in enumerate(ended))
                best = max(best, (total / ((5 + len(ended)) / 6) ** alpha, list(words)))
        assert found[row] == best[1]


def test_frechet_distance():
    torch.manual_seed(3)
    x, y = torch.randn(50, 6) @ torch.randn(6, 6), torch.randn(70, 6) @ torch.randn(6, 6) + 1
    moments = [Moments(), Moments()]
    for part in x.split(20):
        moments[0].add(part)
    moments[1].add(y)
    (mean, cov), (mean_y, cov_y) = (m.normal() for m in moments)
    assert torch.allclose(mean, x.double().mean(0))
    assert torch.allclose(cov, x.double().T.cov())
    cross = torch.linalg.eigvals(cov @ cov_y).sqrt().real.sum()
    expected = (mean - mean_y).square().sum() + (cov.diagonal() + cov_y.diagonal()).sum() - 2 * cross
    assert frechet_distance((mean, cov), (mean_y, cov_y)) == pytest.approx(float(expected), rel=1e-9)
    assert frechet_distance((mean, cov), (mean, cov)) == pytest.approx(0, abs=1e-9)


def test_every_row_of_madam_s_tables_is_a_run():
    keys = set()
    for task, optimizer, bits in itertools.product(
        ("cifar10", "cifar100", "imagenet", "cgan", "wikitext2"), OPTIMIZERS, (None, 12, 10, 8)
    ):
        row = MadamRow()
        row.task, row.args = task, argparse.Namespace(optimizer=optimizer, bits=bits)
        keys.add(row.row_key)
    rows = {key for key in ROWS if key.startswith("madam/")}
    assert rows < keys
    assert len(rows) == 25
    assert str(ROWS["madam/cgan/madam/8"]) == "36 ± 6"
    assert ROWS["madam/wikitext2/madam/none"].source.endswith("Table 1")


# The loop


def schedule(name, optimizer, args=None, **changes):
    args = args or argparse.Namespace(bits=None, optimizer="sgd", patience=1)
    settings = {"total": 1000, "milestones": (0.5, 0.75), "warmup": 4, **changes}
    return Schedule(optimizer, name, args, settings["total"], settings["milestones"], settings["warmup"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", {0: 1.0, 999: 1.0}),
        ("milestones", {0: 1.0, 499: 1.0, 500: 0.1, 749: 0.1, 750: 0.01}),
        ("cosine", {0: 0.1, 9: 1.0, 505: 0.505, 1000: 0.01}),
        ("inverse-sqrt", {0: 0.25, 3: 1.0, 15: 0.5, 399: 0.1}),
    ],
)
def test_schedules(name, expected):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=2.0)
    at = schedule(name, optimizer)
    seen = {}
    for step in range(1001):
        seen[step] = optimizer.param_groups[0]["lr"] / 2.0
        if step == 300:  # a resumed run has a new schedule and the optimizer's own rate
            state, at = at.state_dict(), schedule(name, torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=2.0))
            at.load_state_dict(state)
            optimizer = at.optimizer
        at.after_step()
    assert {step: seen[step] for step in expected} == pytest.approx(expected)


def test_the_plateau_ends_at_the_base_precision():
    optimizer = Madam.paper([torch.nn.Parameter(torch.ones(1))])
    at = schedule("plateau", optimizer, argparse.Namespace(bits=10, optimizer="madam-paper", patience=1))
    for _ in range(9):
        at.after_step()
        at.after_period(1.0)
    assert optimizer.param_groups[0]["lr"] == 0.005  # eta_0 of 10 bits


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--optimizer adam --bits 8", "--bits 8 is for madam and madam-paper"),
        ("--optimizer madam --p-scale 2", "--p-scale goes with --optimizer madam-paper"),
        ("--limit-steps 0", "must be 1 or more"),
        ("--data no/such", "does not exist"),
    ],
)
def test_options_that_cannot_be(samples, tmp_path, capsys, options, said):
    with pytest.raises(SystemExit):
        arguments(MadamCifar, "--data", samples, "--out", tmp_path, *options.split())
    assert said in capsys.readouterr().err


def test_flags_win_over_tiny_and_tiny_over_the_recipe(samples, tmp_path):
    base = ("--data", samples, "--out", tmp_path)
    assert arguments(MadamCifar, *base).width == 64
    assert arguments(MadamCifar, *base, "--tiny").width == 2
    assert arguments(MadamCifar, *base, "--tiny", "--width", "3").width == 3


def test_a_run_is_not_resumed_with_other_settings(samples, tmp_path):
    checkpoint.save(tmp_path / "checkpoint.pt", {"settings": {"optimizer": "adam"}})
    with pytest.raises(
        SystemExit, match=r"holds a run with other settings of .*\bbatch, .*give this one another --out"
    ):
        main(AlgebraEnwik8, ["--data", str(samples), "--out", str(tmp_path), "--tiny", "--device", "cpu"])


def test_a_run_that_diverges_says_so(samples, tmp_path):
    options = ["--data", str(samples / "wikitext-103"), "--out", str(tmp_path), "--tiny", "--device", "cpu"]
    options += ["--optimizer", "sgd", "--lr", "1e30", "--schedule", "constant", "--steps", "20", "--log-every", "1"]
    with pytest.raises(SystemExit, match="this run has diverged; try a smaller --lr"):
        main(AlgebraWikiText103, options)
    assert not (tmp_path / "result.json").exists()
