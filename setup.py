"""Builds the two extension modules. Everything else about the project stands in pyproject.toml."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# Never -march=native or -ffast-math: one wheel runs on every CPU of its architecture, the instruction set is chosen at
# run time, and NaN and the order of every sum mean what they say. errno and FP traps are given up: nothing reads them,
# and they stop the compiler from vectorising square roots and comparisons.
CFLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fvisibility=hidden"]

ISA_VARIANTS = ["base", "avx2", "avx512"]  # one ~10-line file each, the same body


def openmp_flags(compiler):
    """Return the flags for OpenMP, or none where a test program does not compile with them."""
    program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "openmp.c"
        source.write_text(program)
        command = [*compiler, "-fopenmp", str(source), "-o", str(Path(folder) / "openmp")]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except OSError:
            return []
    if done.returncode == 0:
        return ["-fopenmp"]
    print(
        f"aphash: {compiler[0]} has no OpenMP (-fopenmp): building for ONE THREAD; n_jobs will have no effect.",
        file=sys.stderr,
    )
    return []


class BuildExt(build_ext):
    """Adds the OpenMP flags, which can be found only when the compiler is known."""

    def build_extensions(self):
        flags = [] if os.environ.get("APHASH_NO_OPENMP") else openmp_flags(self.compiler.compiler_so[:1])
        for extension in self.extensions:
            extension.extra_compile_args += flags
            extension.extra_link_args += flags
        super().build_extensions()


def extension(name, sources):
    return Extension(
        f"aphash.{name}",
        [f"aphash/{name}.pyx", *sources],
        include_dirs=["csrc", np.get_include()],
        depends=[str(p) for p in Path("csrc").glob("*.h")],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        extra_compile_args=list(CFLAGS),
        extra_link_args=[],
    )


setup(
    ext_modules=cythonize(
        [
            extension("_learn", ["csrc/isa.c", *(f"csrc/learn_{v}.c" for v in ISA_VARIANTS)]),
            extension("_store", ["csrc/pages.c", "csrc/idmap.c"]),
            extension(
                "_search",
                [
                    "csrc/isa.c",
                    *(f"csrc/{part}.c" for part in ["pages", "select", "lookup"]),
                    *(f"csrc/hamming_{v}.c" for v in ISA_VARIANTS),
                ],
            ),
        ],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "freethreading_compatible": False,
        },
    ),
    cmdclass={"build_ext": BuildExt},
)
