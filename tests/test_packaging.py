"""The wheel and the source distribution, built for real and compared with the tree. Nothing here needs a network."""

import email
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import torch

import lognet

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"lognet": "lognet", "optim": "lognet/optim", "quant": "lognet/quant"}  # in the tree -> in an installation
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "tests")
NOT_SHIPPED = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
NATIVE = (
    "lognet/quant/kernels/_native.so"  # built: in a wheel from where there is a compiler, and in no source distribution
)


def expected_files() -> set[str]:
    """Every file of the three folders, code, native sources and data alike, under the path it installs as."""
    files = set()
    for folder, installed in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder)
            through_link = any((ROOT / folder / parent).is_symlink() for parent in [inside, *inside.parents])
            if (
                path.is_file()
                and not through_link
                and not NOT_SHIPPED & set(inside.parts)
                and path.suffix not in (".pyc", ".so")
            ):
                files.add(f"{installed}/{inside.as_posix()}")
    return files


def build(kind: str, source: Path, out: Path, flags: str = "") -> Path:
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(out), str(source)]
    environment = {**os.environ, "LOGNET_CXXFLAGS": flags}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    [made] = out.iterdir()
    return made


# Optimizing the C++ takes half a minute for each wheel and changes none of what is compared here. The symbols go, as in a
# wheel for users, because they differ from build to build.
@pytest.fixture(
    scope="module", params=["-O0 -Wl,-s", pytest.param("", marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def built(request, tmp_path_factory):
    """(wheel built from the tree, source distribution, wheel built from the source distribution)"""
    tmp = tmp_path_factory.mktemp("dist")
    tree = tmp / "tree"
    tree.mkdir()
    for name in (*FOLDERS, *FILES):
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns(*NOT_SHIPPED, "*.so")
            )
        else:
            shutil.copy(ROOT / name, tree / name)
    wheel = build("wheel", tree, tmp / "wheel", request.param)
    shutil.rmtree(tree / "build")  # so that the source distribution cannot lean on what the wheel left behind
    sdist = build("sdist", tree, tmp / "sdist")
    with tarfile.open(sdist) as tar:
        if sys.version_info >= (3, 12):
            tar.extractall(tmp / "unpacked", filter="data")
        else:
            tar.extractall(tmp / "unpacked")
    [unpacked] = (tmp / "unpacked").iterdir()
    return wheel, sdist, build("wheel", unpacked, tmp / "wheel-from-sdist", request.param)


def wheel_files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        return {name: archive.read(name) for name in names}


def test_wheel_holds_the_tree(built):
    shipped = {name for name in wheel_files(built[0]) if ".dist-info/" not in name}
    expected = expected_files()
    assert {"lognet/__init__.py", "lognet/py.typed", "lognet/optim/__init__.py", "lognet/quant/__init__.py"} <= expected
    assert not expected - shipped, "in the tree and not in the wheel: list the package, or its data, in pyproject.toml"
    assert shipped - expected == ({NATIVE} if shutil.which("c++") else set()), "in the wheel and not in the tree"


def test_wheel_has_one_top_level_name(built):
    assert {name.split("/")[0] for name in wheel_files(built[0]) if ".dist-info/" not in name} == {"lognet"}


def test_wheel_of_the_source_distribution_is_the_same(built):
    direct, through_sdist = wheel_files(built[0]), wheel_files(built[2])
    assert direct.keys() == through_sdist.keys()
    assert [name for name in direct if direct[name] != through_sdist[name]] == []


def test_source_distribution_holds_each_file_once(built):
    with tarfile.open(built[1]) as tar:
        names = [name.split("/", 1)[1] for name in tar.getnames() if "/" in name]
    assert len(names) == len(set(names))
    assert {"LICENSE", "README.md", "CHANGELOG.md", "optim/__init__.py", "quant/__init__.py"} <= set(names)
    assert {"setup.py", "quant/kernels/csrc/lognet.h", "quant/kernels/csrc/api.cpp"} <= set(names)
    assert not [name for name in names if name.endswith(".so")]
    assert not [name for name in names if name.startswith(("lognet/optim", "lognet/quant", "tests"))]


def test_metadata(built):
    files = wheel_files(built[0])
    [name] = [name for name in files if name.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(files[name])
    assert metadata["Version"] == lognet.__version__
    assert f"\nversion: {lognet.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    keywords = "".join(f"  - {keyword}\n" for keyword in metadata["Keywords"].split(","))
    assert f"\nkeywords:\n{keywords}references:\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{lognet.__version__}] - " in (ROOT / "CHANGELOG.md").read_text()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    required = {line.split(">=")[0] for line in metadata.get_all("Requires-Dist") if "extra ==" not in line}
    assert required == {"torch", "numpy", "safetensors", "tqdm"}
    assert set(metadata.get_all("Provides-Extra")) == {
        "sweep",
        "quant",
        "quality",
        "bench",
        "clients",
        "docs",
        "paper",
        "dev",
    }
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in files)


def run(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)


def test_wheel_works_where_there_is_no_checkout(built, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(built[0]) as archive:
        archive.extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import lognet, lognet.optim, lognet.quant, lognet.sweep\n"
        "import lognet.quant.kernels as kernels\n"
        f"assert (kernels.backend() != 'reference') is {bool(shutil.which('c++'))}\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('lognet')), sep='\\n')"
    )
    done = run(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = done.stdout.splitlines()
    assert len(files) >= 4
    assert all(file.startswith(str(site / "lognet")) for file in files)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_types_of_the_wheel_satisfy_a_strict_client(built, tmp_path):
    """As a user has it: an environment with the wheel in it, a file elsewhere, mypy's own idea of what `py.typed` means."""
    venv.create(tmp_path / "venv", symlinks=True)
    [site] = (tmp_path / "venv/lib").glob("python*/site-packages")
    with zipfile.ZipFile(built[0]) as archive:
        archive.extractall(site)
    (site / "ours.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")  # torch and the rest, behind the wheel
    client = shutil.copy(ROOT / "tests/typed_client.py", tmp_path)

    def mypy(file: Path) -> str:
        options = ["--strict", "--python-executable", tmp_path / "venv/bin/python", "--cache-dir", tmp_path / "cache"]
        done = subprocess.run(
            [sys.executable, "-m", "mypy", *options, file], cwd=tmp_path, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    said = mypy(client)
    assert said.startswith("Success"), said
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import lognet\nlognet.wrap(3)\nlognet.nothing\nn: str = lognet.held_bytes()\n")
    said = mypy(wrong)
    assert [f":{line}: error: " in said for line in (2, 3, 4)] == [True] * 3, said


def test_import_optim_from_the_checkout_fails():
    """In the checkout `import optim` finds a folder: it must not become a second copy of `lognet.optim`."""
    done = run("import optim", cwd=ROOT)
    assert done.returncode == 1
    assert "ImportError" in done.stderr


def test_import_quant_from_the_checkout_fails():
    done = run("import quant", cwd=ROOT)
    assert done.returncode == 1
    assert "ImportError" in done.stderr
