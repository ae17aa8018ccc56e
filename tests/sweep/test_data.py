"""The loaders: splits, windows, and the CIFAR-10 files in the format in which they are distributed."""

import pickle
import struct

import pytest
import torch

from lognet.sweep.data import (
    CONTEXT,
    MAX_SYMBOLS,
    crop_and_flip,
    epoch_order,
    load_cifar10,
    load_cifar100,
    load_digits,
    load_text,
    normalise_cifar10,
    stratified_split,
    text_windows,
)
from lognet.sweep.errors import SweepError


def test_stratified_split():
    labels = torch.tensor([0, 1] * 30 + [2] * 40)
    train, test = stratified_split(labels, 0.25)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(100))
    assert labels[test].bincount().tolist() == [8, 8, 10]  # of 30, 30, 40
    assert torch.equal(stratified_split(labels, 0.25)[1], test)


def test_digits():
    data = load_digits()
    assert len(data.train_x) + len(data.test_x) == 1797
    assert data.train_x.shape[1:] == (1, 8, 8)
    assert abs(float(data.train_x.mean())) < 1e-5
    assert abs(float(data.train_x.std()) - 1) < 1e-5
    share = data.test_y.bincount() / (data.test_y.bincount() + data.train_y.bincount())
    assert bool(((share - 0.5).abs() < 0.01).all())


def test_own_prose():
    data = load_text()
    total = len(data.train_x) + len(data.test_x)
    assert total > 300_000
    assert len(data.train_x) == total * 9 // 10
    assert int(data.train_x.max()) < data.classes <= MAX_SYMBOLS + 1


def test_text_is_split_by_position_and_rare_characters_share_a_symbol(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("ab" * 2000 + "ä" * 400, encoding="utf-8-sig")
    data = load_text(path)
    # 4,400 characters: 3,960 train (a and b), 440 held out (20 times ab, then 400 times an unseen letter).
    assert data.classes == 3
    assert data.train_x.tolist() == [0, 1] * 1980
    assert data.test_x.tolist() == [0, 1] * 20 + [2] * 400
    path.write_text("".join(chr(0x4E00 + i) for i in range(400)) * 5, encoding="utf-8")
    many = load_text(path)
    assert many.classes == MAX_SYMBOLS + 1
    assert many.train_x.unique().numel() == MAX_SYMBOLS + 1
    assert many.digest != data.digest


def test_windows_predict_each_held_out_character_once():
    x, y = text_windows(torch.arange(3 * CONTEXT + 10))
    assert x.shape == y.shape == (3, CONTEXT)
    assert torch.equal(y.flatten(), torch.arange(1, 3 * CONTEXT + 1))
    assert torch.equal(x.flatten() + 1, y.flatten())


def test_epoch_order_covers_everything_once():
    batches = epoch_order(100, 30, torch.Generator().manual_seed(1))
    assert [len(b) for b in batches] == [30, 30, 30]
    assert torch.cat(batches).unique().numel() == 90
    assert [len(b) for b in epoch_order(5, 30, torch.Generator())] == [5]


# -- CIFAR-10 ----------------------------------------------------------------------------------------------------------


def python2_pickle(rows, labels):
    """A batch as Python 2 and NumPy 1 wrote it: protocol 2, byte strings, the array by its old module names.

    Written opcode by opcode, because no Python 3 writes this any more.
    """

    def string(b):
        return b"U" + bytes([len(b)]) + b if len(b) < 256 else b"T" + struct.pack("<i", len(b)) + b

    def integer(i):
        return b"K" + bytes([i]) if i < 256 else b"M" + struct.pack("<H", i)

    array = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + integer(0) + b"\x85" + string(b"b")
    array += b"\x87R("  # REDUCE, then the state: version, shape, dtype, order, bytes
    array += integer(1) + integer(len(rows)) + integer(3072) + b"\x86"
    array += b"cnumpy\ndtype\n" + string(b"u1") + integer(0) + integer(1) + b"\x87R"
    array += b"(" + integer(3) + string(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + integer(0) + b"tb"
    array += b"\x89" + string(b"".join(rows)) + b"tb"
    names = (
        b"](" + b"".join(string(f"leptodactylus_pentadactylus_s_{i:06}.png".encode()) for i in range(len(rows))) + b"e"
    )
    items = string(b"batch_label") + string(b"training batch 1 of 5")
    items += string(b"labels") + b"](" + b"".join(map(integer, labels)) + b"e"
    items += string(b"data") + array + string(b"filenames") + names
    return b"\x80\x02}(" + items + b"u."


def write_cifar(folder, per_file=8):
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels = torch.randint(0, 256, (per_file, 3072), generator=generator, dtype=torch.uint8).numpy()
        labels = torch.randint(0, 10, (per_file,), generator=generator).tolist()
        (folder / name).write_bytes(python2_pickle([p.tobytes() for p in pixels], labels))
    return folder


def test_cifar10_in_its_true_format(tmp_path):
    folder = write_cifar(tmp_path / "data" / "cifar-10-batches-py")
    data = load_cifar10(folder)
    assert data.train_x.shape == (40, 3, 32, 32)
    assert data.test_x.shape == (8, 3, 32, 32)
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, 256, (8, 3072), generator=generator, dtype=torch.uint8)
    assert torch.equal(data.train_x[:8].flatten(1), first)
    assert torch.equal(data.train_y[:8], torch.randint(0, 10, (8,), generator=generator))
    assert load_cifar10(folder.parent).digest == data.digest  # the parent folder does as well


def test_cifar10_written_by_todays_python(tmp_path):
    folder = write_cifar(tmp_path / "cifar-10-batches-py")
    old = load_cifar10(folder)
    for path in folder.iterdir():
        content = pickle.loads(path.read_bytes(), encoding="bytes")
        path.write_bytes(pickle.dumps(content, protocol=2))
    assert load_cifar10(folder).digest == old.digest


class Evil:
    def __reduce__(self):
        return (print, ("this code ran",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a pickle", "is not a CIFAR-10 batch"),
        (b"", "is not a CIFAR-10 batch"),
        (pickle.dumps([1, 2]), "should be a uint8 array"),
        (pickle.dumps({b"data": Evil()}), r"it names (__builtin__|builtins)\.print"),
        (python2_pickle([bytes(3072)] * 2, [1]), "one class for each of 2 rows"),
        (python2_pickle([bytes(3072)], [77]), "integers from 0 to 9"),
    ],
)
def test_wrong_cifar10_files(tmp_path, capsys, content, said):
    folder = write_cifar(tmp_path / "cifar-10-batches-py", per_file=1)
    (folder / "data_batch_3").write_bytes(content)
    with pytest.raises(SweepError, match=said):
        load_cifar10(folder)
    assert capsys.readouterr().out == ""


def write_cifar100(folder, label=b"fine_labels"):
    folder.mkdir(parents=True)
    for name, first in (("train", 0), ("test", 90)):
        pixels = torch.arange(6 * 3072).reshape(6, 3072).to(torch.uint8).numpy()
        content = {b"data": pixels, b"coarse_labels": [0] * 6, label: [first + i for i in range(6)]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return folder


def test_cifar100_has_fine_labels(tmp_path):
    folder = write_cifar100(tmp_path / "cifar-100-python")
    data = load_cifar100(folder)
    assert (data.classes, data.train_x.shape) == (100, (6, 3, 32, 32))
    assert data.test_y.tolist() == [90, 91, 92, 93, 94, 95]
    assert torch.equal(data.train_x.flatten(), torch.arange(6 * 3072).to(torch.uint8))
    assert load_cifar100(tmp_path).digest == data.digest


def test_wrong_cifar100_files(tmp_path, capsys):
    folder = write_cifar100(tmp_path / "a", label=b"labels")
    with pytest.raises(SweepError, match="not a CIFAR-100 batch: b'fine_labels' should list one class for each of 6"):
        load_cifar100(folder)
    (folder / "train").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(SweepError, match=r"it names (__builtin__|builtins)\.print"):
        load_cifar100(folder)
    assert capsys.readouterr().out == ""
    (folder / "test").unlink()
    with pytest.raises(SweepError, match="lacks test"):
        load_cifar100(folder)


def test_missing_cifar10_files(tmp_path):
    folder = write_cifar(tmp_path / "cifar-10-batches-py", per_file=1)
    (folder / "data_batch_2").unlink()
    (folder / "test_batch").unlink()
    with pytest.raises(SweepError, match="lacks data_batch_2, test_batch"):
        load_cifar10(folder)


@pytest.mark.parametrize(("size", "padding"), [(32, 4), (24, 0), (40, 4)])
def test_crop_and_flip_against_slices(size, padding):
    images = torch.arange(64 * 3 * 32 * 32, dtype=torch.float32).reshape(64, 3, 32, 32)
    options = () if (size, padding) == (32, 4) else (size, padding)  # the defaults
    done = crop_and_flip(images, torch.Generator().manual_seed(5), *options)
    generator = torch.Generator().manual_seed(5)
    top, left = torch.randint(0, 33 + 2 * padding - size, (2, 64), generator=generator).tolist()
    mirrored = (torch.rand(64, generator=generator) < 0.5).tolist()
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    for i in range(64):
        crop = padded[i, :, top[i] : top[i] + size, left[i] : left[i] + size]
        assert torch.equal(done[i], crop.flip(-1) if mirrored[i] else crop)


def test_a_crop_that_does_not_fit():
    with pytest.raises(ValueError, match="at least 33 wide"):
        crop_and_flip(torch.zeros(1, 3, 32, 32), torch.Generator(), 33, 0)


def test_normalise_cifar10():
    grey = normalise_cifar10(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    assert grey[0, :, 0, 0].tolist() == pytest.approx(
        [(1 - 0.4914) / 0.247, (1 - 0.4822) / 0.2435, (1 - 0.4465) / 0.2616]
    )
