"""Builds the native kernels (quant/kernels/csrc and optim/csrc) beside the Python that is described in pyproject.toml.

They are optional. Without a C++ compiler the installation succeeds, everything works on plain torch operations, and one
warning says what is lost. The library has a plain C interface, so one build serves every Python and every torch.
"""

import os
import platform
import runpy
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

sources = runpy.run_path(str(Path(__file__).parent / "quant/kernels/sources.py"))
FOLDERS = sources["NATIVE"]

# Each operation is rounded by itself, as in torch: no contraction, no fast math.
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
FLAGS += [
    "-fno-exceptions",
    "-fno-rtti",
    "-Wall",
    "-Wno-maybe-uninitialized",
    "-Wno-uninitialized",  # warnings in GCC's own header of AVX-512
    f'-DLOGNET_SOURCES="{sources["native_digest"]()}"',
    f"-I{FOLDERS[0]}",
]
AVX2 = ["-mavx2", "-mfma", "-mf16c", "-mbmi2"]
LEVELS = {"avx2": AVX2, "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", *AVX2]}
"""The instructions that a file may use, by the end of its name."""


class BuildKernels(build_ext):
    """Compiles each file for its instruction set. The name of the library does not contain a version of Python."""

    def build_extension(self, ext: Extension) -> None:
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        extra = os.environ.get("LOGNET_CXXFLAGS", "").split()
        objects = []
        for source in sorted(ext.sources):
            own = LEVELS.get(Path(source).stem.rpartition("_")[2])
            if own is None or x86:
                flags = [
                    *FLAGS,
                    f"-frandom-seed={source}",
                    *(own or []),
                    *([] if x86 else ["-DLOGNET_PORTABLE_ONLY"]),
                    *extra,
                ]
                objects += self.compiler.compile(
                    [source], output_dir=self.build_temp, extra_postargs=flags, depends=ext.depends
                )
        strip = [] if extra else ["-Wl,-s"] * (platform.system() == "Linux")  # smaller, and reproducible
        self.compiler.link_shared_object(objects, self.get_ext_fullpath(ext.name), extra_postargs=[*extra, *strip])

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"


class AnyPython(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def sources_with(suffix: str) -> list[str]:
    return sorted(path.as_posix() for folder in FOLDERS for path in Path(folder).rglob(f"*{suffix}"))


setup(
    ext_modules=[
        Extension(
            "lognet.quant.kernels._native",
            sources=sources_with(".cpp"),
            depends=sources_with(".h"),
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": AnyPython},
)
