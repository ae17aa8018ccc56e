"""The file format: what it holds, what it refuses, and that docs/files.md says how to read it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles.same import assert_same
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lognet import LogTensor
from lognet.saving.files import CHECKSUM, VERSION, read_file, write_file
from lognet.tensor.parameter import draw_signs_

GUIDE = Path(__file__).resolve().parents[2] / "docs/files.md"
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool]


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("shape", [(), (7,), (33, 5), (0, 4), (2, 3, 4)])
def test_log_tensors_of_every_width_survive(tmp_path, bits, shape):
    state = {"w": LogTensor.from_float(randn(*shape), bits=bits, base_precision=0.9 * 2.0**-bits, scale=4.0)}
    state["half"] = state["w"].to(torch.bfloat16)
    write_file(tmp_path / "a", state, {})
    for name, back in read_file(tmp_path / "a")[0].items():
        assert_same(back, state[name])


def test_dense_tensors_of_every_dtype_survive(tmp_path):
    state = {str(dtype): (randn(5, 3) * 10).to(dtype) for dtype in DTYPES}
    state["complex"] = torch.view_as_complex(randn(4, 2)).conj()
    state["scalar"], state["empty"], state["strided"] = torch.tensor(3), torch.zeros(0, 2), randn(4, 6)[::2].t()
    state["overlapping"] = state["strided"].t()[0]
    write_file(tmp_path / "a", state, {})
    back = read_file(tmp_path / "a")[0]
    assert back.keys() == state.keys()
    for name in state:
        assert_same(back[name], state[name])


@pytest.mark.parametrize("mask", [torch.arange(6)[:, None] != 3, torch.rand(6, 10) < 0.5])
def test_masks_survive(tmp_path, mask):
    w = LogTensor.from_float(randn(6, 10)).set_mask_(mask)
    write_file(tmp_path / "a", {"w": w, "view": w.t()}, {})
    back = read_file(tmp_path / "a")[0]
    assert_same(back["w"], w)
    assert torch.equal(back["view"], w.t())
    assert torch.equal(back["w"].set_mask_(None), w.clone().set_mask_(None))  # the codes under the mask too


def test_one_tensor_under_two_names_is_written_once_and_one_tensor_again(tmp_path):
    w, b = LogTensor.from_float(randn(100, 100)), randn(1000)
    write_file(tmp_path / "a", {"w": w, "b": b, "v": w, "c": b}, {})
    assert os.path.getsize(tmp_path / "a") < w.nbytes + 4000 + 1000
    back = read_file(tmp_path / "a")[0]
    assert back["v"] is back["w"]
    assert back["c"] is back["b"]


def test_the_same_tensors_make_the_same_bytes(tmp_path):
    state = {f"w{i}": LogTensor.from_float(randn(3, 4)) for i in range(5)} | {"x": randn(3)}
    write_file(tmp_path / "a", state, {})
    write_file(tmp_path / "b", state, {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("bits", [3, 8, 12])
def test_drawn_signs_cost_nothing_and_come_back(tmp_path, bits):
    w = LogTensor.from_float(randn(400, 100), bits=bits)
    draw_signs_(w, 77)
    write_file(tmp_path / "with", {"w": w}, {})
    write_file(tmp_path / "without", {"w": w}, {"w": 77})
    assert_same(read_file(tmp_path / "without")[0]["w"], w)
    saved = os.path.getsize(tmp_path / "with") - os.path.getsize(tmp_path / "without")
    assert abs(saved - 40_000 / 8) < 100
    assert os.path.getsize(tmp_path / "without") <= bits * 40_000 / 8 + 600


def test_a_seed_that_does_not_give_the_saved_signs_is_noticed(tmp_path):
    w = LogTensor.from_float(randn(40, 10))
    write_file(tmp_path / "a", {"w": w}, {"w": 77})  # a claim that lognet.save would have checked
    with pytest.raises(ValueError, match="or the signs that its seed gives, do not have the checksum"):
        read_file(tmp_path / "a")


# What is refused


@pytest.fixture
def good(tmp_path):
    table = LogTensor.from_float(randn(4, 3), bits=10).set_mask_(torch.arange(4)[:, None] > 0)
    seeded = LogTensor.from_float(randn(3, 3))
    draw_signs_(seeded, 5)
    write_file(tmp_path / "good", {"w": table, "v": table, "s": seeded, "x": randn(2)}, {"s": 5})
    return tmp_path / "good"


def refuses_flips(good, bits_of):
    whole = good.read_bytes()
    read_file(good)
    for position in range(len(whole)):
        for bit in bits_of(position):
            bad = bytearray(whole)
            bad[position] ^= 1 << bit
            good.write_bytes(bad)
            with pytest.raises(ValueError, match=re.escape(str(good))):
                read_file(good)


def test_a_flipped_bit_in_any_byte_is_noticed(good):
    refuses_flips(good, lambda position: [position * 5 % 8])


@pytest.mark.slow
def test_any_flipped_bit_is_noticed(good):
    refuses_flips(good, lambda position: range(8))


def test_every_truncation_and_addition_is_noticed(good):
    whole = good.read_bytes()
    for length in range(len(whole)):
        good.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is not a whole safetensors file .*cut short or damaged.*Restore it"):
            read_file(good)
    good.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        read_file(good)


def rewritten(good, change):
    """The file again with a changed description and, as its writer would have made it, its checksum."""
    from lognet.saving.files import _checksum

    with safe_open(good, framework="pt") as file:
        description = json.loads(file.metadata()["lognet"])
    planes = load_file(good)
    del planes[CHECKSUM]
    change(description, planes)
    text = json.dumps(description, sort_keys=True)
    save_file(planes | {CHECKSUM: _checksum(text, planes)}, good, {"lognet": text})


def test_a_newer_version_is_named(good):
    rewritten(good, lambda description, planes: description.update(version=VERSION + 1))
    with pytest.raises(ValueError, match=f"has version {VERSION + 1} of lognet's file format.*install a newer lognet"):
        read_file(good)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d, p: p.update({"w.low": p["w.low"][:3].clone()}), "w.low is not the plane of a LogTensor of shape"),
        (lambda d, p: p.update({"w.sign": p["w.sign"].int()}), "w.sign is not the plane"),
        (lambda d, p: p.pop("w.high"), "'w.high' is missing"),
        (lambda d, p: p.update({"w.scale": torch.tensor(-1.0)}), "scale must be"),
        (lambda d, p: d["log_tensors"]["w"].update(bits=99), "bits must be from 2 to 16"),
        (lambda d, p: d["log_tensors"]["w"].update(shape=[5, 5]), "of shape .5, 5."),
        (lambda d, p: d["log_tensors"]["w"].update(shape=[-4, -3]), "shape"),
        (lambda d, p: d["log_tensors"]["w"].update(dtype="float99"), "float99"),
        (lambda d, p: d["log_tensors"]["w"].update(dtype="int32"), "int32"),
        (lambda d, p: d["log_tensors"]["w"].update(group=0), "w.keep is not the plane"),
        (lambda d, p: d["tied"].update(v="nobody"), "'nobody' is missing"),
        (lambda d, p: d.pop("complex"), "'complex' is missing"),
    ],
)
def test_a_sound_checksum_over_nonsense_does_not_help(good, change, words):
    def honest(description, planes):  # without the seeded tensor, whose plane `rewritten` does not have
        description["log_tensors"].pop("s")
        for plane in ("low", "scale"):
            planes.pop(f"s.{plane}")

    rewritten(good, honest)
    assert read_file(good)[0].keys() == {"w", "v", "x"}
    rewritten(good, change)
    with pytest.raises(ValueError, match=f"good is damaged: .*{words}"):
        read_file(good)


def test_files_of_other_kinds_are_named(tmp_path):
    torch.save({"x": torch.ones(2)}, tmp_path / "a")
    with pytest.raises(ValueError, match="not a whole safetensors file.*of torch.save, say: use torch.load"):
        read_file(tmp_path / "a")
    for metadata in (None, {"format": "pt"}):
        save_file({"x": torch.ones(2)}, tmp_path / "a", metadata)
        with pytest.raises(ValueError, match=r"not one that lognet.save wrote; read it with.*load_file"):
            read_file(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="there is no file .*nowhere"):
        read_file(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ({"a": 1}, TypeError, "x is a dict, not a tensor.*get_extra_state"),
        (torch.ones(2, device="meta"), ValueError, "x is on the meta device"),
        (torch.ones(2).to_sparse(), TypeError, "layout torch.sparse_coo"),
        (torch.nn.parameter.UninitializedParameter(), ValueError, "x is not initialised yet"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, value, error, words):
    write_file(tmp_path / "a", {"x": torch.ones(2)}, {})
    with pytest.raises(error, match=words):
        write_file(tmp_path / "a", {"w": torch.ones(3), "x": value}, {})
    assert torch.equal(read_file(tmp_path / "a")[0]["x"], torch.ones(2))
    assert os.listdir(tmp_path) == ["a"]


def test_names_that_would_clash_are_refused(tmp_path):
    w = LogTensor.from_float(randn(3))
    for other in ({"w.low": torch.ones(1)}, {CHECKSUM: torch.ones(1)}):
        with pytest.raises(ValueError, match="two tensors would have the name"):
            write_file(tmp_path / "a", {"w": w, **other}, {})


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere; create it first"):
        write_file(tmp_path / "nowhere" / "a", {}, {})


def test_a_link_stays_a_link_and_a_file_keeps_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/a")
    write_file(tmp_path / "link", {"x": torch.ones(2)}, {})
    assert (tmp_path / "link").is_symlink()
    assert torch.equal(read_file(tmp_path / "folder" / "a")[0]["x"], torch.ones(2))
    assert (tmp_path / "folder" / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


# Killed

KILLER = """
import os, random, signal, sys, time
import torch
from lognet.saving.files import read_file, write_file

path, kills = sys.argv[1], int(sys.argv[2])
states = [{"x": torch.full((200_000,), float(i))} for i in range(2)]
write_file(path, states[0], {})
delays = random.Random(0)
for _ in range(kills):
    child = os.fork()
    if child == 0:
        while True:
            for state in states:
                write_file(path, state, {})
    time.sleep(delays.uniform(0.005, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    x = read_file(path)[0]["x"]
    assert bool((x == x[0]).all()) and x.numel() == 200_000
print(sum(name.endswith(".tmp") for name in os.listdir(os.path.dirname(path))))
"""


def test_killed_while_saving_leaves_a_whole_file(tmp_path):
    command = [sys.executable, "-c", KILLER, str(tmp_path / "a"), "40"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5  # so many were killed between the first byte and the last


# Without lognet


def test_the_guide_reads_the_files_that_it_writes(tmp_path):
    text = GUIDE.read_text()
    [writing] = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    [reading] = re.findall(r"^```python standalone\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert text.count("```python") == 2
    cwd = os.getcwd()
    os.chdir(tmp_path)
    try:
        names: dict = {}
        exec(writing, names)
    finally:
        os.chdir(cwd)
    masked = LogTensor.from_float(randn(6, 10), bits=3).set_mask_(torch.rand(6, 10) < 0.5)
    eight = LogTensor.from_float(randn(5, 5), bits=8)
    write_file(tmp_path / "more", {"masked": masked, "eight": eight, "tied": eight, "x": randn(3)}, {})
    files = [str(tmp_path / name) for name in ("model.safetensors", "small.safetensors", "more")]
    done = subprocess.run([sys.executable, "-c", reading, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = [names["model"].state_dict()] * 2 + [{"masked": masked, "eight": eight, "tied": eight}]
    for file, state in zip(files, expected, strict=True):
        arrays = np.load(file + ".npz")
        assert set(arrays) == set(state)
        for name in state:
            assert np.array_equal(arrays[name], state[name].dequantize().numpy()), name
