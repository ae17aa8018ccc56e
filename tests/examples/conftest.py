"""Tiny samples of the papers' data sets, in their true file formats."""

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image

WORDS = ["the", "of", "war", "<unk>", "in", "Valkyria", "game", "=", "and", "caf\u00e9", ",", "."]
GERMAN = ["das", "ist", "ein", "sch@@", "öner", "tag", ",", "nicht", "wahr", "?", "ja"]
ENGLISH = ["this", "is", "a", "beau@@", "tiful", "day", ",", "isn", "&apos;t", "it", "?"]


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """A folder with cifar-10-batches-py, cifar-100-python, imagenet, wikitext-2, wikitext-103, enwik8 and iwslt14."""
    root = tmp_path_factory.mktemp("samples")
    write_cifar(root)
    write_imagenet(root / "imagenet")
    for name in ("wikitext-2", "wikitext-103"):
        write_wikitext(root / name)
    page = "  <page>\n    <title>Anarchism</title> [[philosophy]] caf\u00e9\n  </page>\n"
    (root / "enwik8").write_bytes(("<mediawiki>\n" + page * 12).encode())
    write_iwslt(root / "iwslt14")
    return root


def write_cifar(root, each=8):
    """Pickles of protocol 2 with keys of bytes, as Python reads what Python 2 wrote."""
    numbers = np.random.default_rng(0)

    def batch(path, label, classes):
        content = {
            b"batch_label": b"training batch 1 of 5",
            label: numbers.integers(0, classes, each).tolist(),
            b"data": numbers.integers(0, 256, (each, 3072), dtype=np.uint8),
            b"filenames": [b"leptodactylus_s_%06d.png" % i for i in range(each)],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(content, protocol=2))

    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        batch(root / "cifar-10-batches-py" / name, b"labels", 10)
    for name in ("train", "test"):
        batch(root / "cifar-100-python" / name, b"fine_labels", 100)


def write_imagenet(root):
    """Photographs of other shapes and modes than the model's: JPEG, a grey one among them."""
    numbers = np.random.default_rng(0)
    for part, each in (("train", 4), ("val", 2)):
        for name in ("n01440764", "n01443537"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(each):
                shape = (40, 56) if i == 1 else (56, 40, 3)
                picture = Image.fromarray(numbers.integers(0, 256, shape, dtype=np.uint8))
                picture.save(folder / f"{name}_{i}.JPEG", quality=90)


def write_wikitext(root):
    chosen = random.Random(0)
    root.mkdir()
    for part, lines in (("train", 12), ("valid", 5), ("test", 5)):
        text = "".join(f" {' '.join(chosen.choices(WORDS, k=9))} \n" for _ in range(lines))
        (root / f"wiki.{part}.tokens").write_text(text, encoding="utf-8")


def write_iwslt(root):
    chosen = random.Random(0)
    root.mkdir()
    for part, lines in (("train", 17), ("valid", 4), ("test", 5)):
        for language, tokens in (("de", GERMAN), ("en", ENGLISH)):
            text = "".join(" ".join(chosen.choices(tokens, k=chosen.randint(3, 8))) + "\n" for _ in range(lines))
            (root / f"{part}.{language}").write_text(text, encoding="utf-8")


class Features(torch.nn.Module):
    """What stands for the Inception network: a few averages of a picture."""

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert return_features
        return torch.nn.functional.avg_pool2d(x.float() / 255, 16).flatten(1)


@pytest.fixture(scope="session")
def inception(tmp_path_factory):
    """A TorchScript file of a network that is called as the Inception network is."""
    path = tmp_path_factory.mktemp("inception") / "features.pt"
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, whose format such files have
        torch.jit.script(Features()).save(str(path))
    return path
