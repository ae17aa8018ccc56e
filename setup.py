"""Builds the native kernels (quant/kernels/csrc) beside the Python that is described in pyproject.toml.

They are optional: without a C++ compiler the installation succeeds, everything works on plain torch operations, and
lognet says once what is lost. The library is plain C to the outside: one build serves every Python and every torch.
"""

import os
import platform
import runpy
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = "quant/kernels/csrc"
sources = runpy.run_path(str(Path(__file__).parent / "quant/kernels/sources.py"))

# Each number is rounded by itself, as torch rounds it: no contraction, no fast math.
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
FLAGS += [
    "-fno-exceptions",
    "-fno-rtti",
    "-Wall",
    "-Wno-maybe-uninitialized",
    "-Wno-uninitialized",  # in GCC's own header of AVX-512
    f'-DLOGNET_SOURCES="{sources["digest"](Path(SOURCES))}"',
]
LEVELS = {
    "kernels_avx2.cpp": ["-mavx2", "-mfma", "-mf16c", "-mbmi2"],
    "kernels_avx512.cpp": [
        "-mavx512f",
        "-mavx512bw",
        "-mavx512dq",
        "-mavx512vl",
        "-mavx2",
        "-mfma",
        "-mf16c",
        "-mbmi2",
    ],
}


class BuildKernels(build_ext):
    """Every file with the instructions it may use; a file name that no Python version is part of."""

    def build_extension(self, ext: Extension) -> None:
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        extra = os.environ.get("LOGNET_CXXFLAGS", "").split()
        objects = []
        for source in sorted(ext.sources):
            own = LEVELS.get(Path(source).name)
            if own is None or x86:
                flags = [
                    *FLAGS,
                    f"-frandom-seed={Path(source).name}",
                    *(own or []),
                    *([] if x86 else ["-DLOGNET_PORTABLE_ONLY"]),
                    *extra,
                ]
                objects += self.compiler.compile(
                    [source], output_dir=self.build_temp, extra_postargs=flags, depends=ext.depends
                )
        strip = [] if extra else ["-Wl,-s"] * (platform.system() == "Linux")  # as small, and the same every time
        self.compiler.link_shared_object(objects, self.get_ext_fullpath(ext.name), extra_postargs=[*extra, *strip])

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"


class AnyPython(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            "lognet.quant.kernels._native",
            sources=sorted(path.as_posix() for path in Path(SOURCES).glob("*.cpp")),
            depends=sorted(path.as_posix() for path in Path(SOURCES).glob("*.h")),
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": AnyPython},
)
