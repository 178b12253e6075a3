"""Builds the extension modules. Everything else about the project stands in pyproject.toml."""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

# Never -march=native or -ffast-math: one wheel runs on every CPU of its architecture, the instruction set is chosen at
# run time, and NaN and the order of every sum mean what they say. errno and FP traps are given up: nothing reads them,
# and they stop the compiler from vectorising square roots and comparisons.
CFLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fvisibility=hidden"]
CFLAGS += ["-g0"]  # Python's own flags often ask for debug information, which makes a wheel four times as large

OPENMP = (  # flags for the compiler, flags for the linker
    (["-fopenmp"], ["-fopenmp"]),  # GCC; Clang with its OpenMP library
    (["-Xpreprocessor", "-fopenmp"], ["-lomp"]),  # Apple's Clang, whose library (libomp) is installed apart
)


def openmp_flags(compiler):
    """Return the flags for OpenMP, of the compiler and of the linker: the first that build a test program, or none.

    ``LDFLAGS`` is asked, too: it may say where the library lies.
    """
    program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "openmp.c"
        source.write_text(program)
        for compile_flags, link_flags in OPENMP:
            flags = [*compile_flags, *os.environ.get("CFLAGS", "").split(), str(source), "-o", f"{folder}/openmp"]
            command = [*compiler, *flags, *os.environ.get("LDFLAGS", "").split(), *link_flags]
            try:
                done = subprocess.run(command, capture_output=True, check=False)
            except OSError:
                break
            if done.returncode == 0:
                return compile_flags, link_flags
    print(f"aphash: {compiler[0]} has no OpenMP: building for ONE THREAD; n_jobs will have no effect.", file=sys.stderr)
    return [], []


class BuildExt(build_ext):
    """Adds the OpenMP flags, which can be found only when the compiler is known, and compiles in parallel.

    An editable install (``pip install -e``) takes an extension that lies in the checkout and is newer than everything
    that it is made of as it is, so that installing once more, with other extras, compiles nothing.
    """

    def build_extensions(self):
        if self.compiler.compiler_type != "unix":
            raise SystemExit(f"aphash needs GCC or Clang, and POSIX; {self.compiler.compiler_type!r} is not supported")
        without = bool(os.environ.get("APHASH_NO_OPENMP"))
        flags, link_flags = ([], []) if without else openmp_flags(self.compiler.compiler_so[:1])
        for extension in self.extensions:
            extension.extra_compile_args += [*flags, *os.environ.get("APHASH_CFLAGS", "").split()]
            extension.extra_link_args += link_flags
        self.parallel = self.parallel or os.cpu_count()
        one_by_one = self.compiler.compile

        def compile_all(sources, *args, **kwargs):  # the C library's files; each module has one file of its own
            with ThreadPoolExecutor(self.parallel) as pool:
                made = pool.map(lambda source: one_by_one([source], *args, **kwargs), sources)
                return [each for objects in made for each in objects]

        self.compiler.compile = compile_all
        super().build_extensions()

    def build_extension(self, ext):
        built = Path(self.get_ext_filename(self.get_ext_fullname(ext.name)))  # relative to the checkout
        target = Path(self.get_ext_fullpath(ext.name))
        module = ext.name.replace(
            ".", "/"
        )  # cythonize has put its C file, made anew for each environment, into sources
        sources = [f"{module}.pyx", *(s for s in ext.sources if s != f"{module}.c"), *ext.depends, "setup.py"]
        if getattr(self, "editable_mode", False) and built.exists() and not newer_group(sources, str(built)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(built, target)
        else:
            super().build_extension(ext)


def extension(name, sources=()):
    headers = [*Path("csrc").rglob("*.h"), *Path("csrc").rglob("*.def"), *Path("aphash").rglob("*.px[di]")]
    return Extension(
        f"aphash.{name}",
        [f"aphash/{name.replace('.', '/')}.pyx", *sources],
        include_dirs=["csrc", np.get_include()],
        depends=sorted(map(str, headers)),
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        extra_compile_args=list(CFLAGS),
        extra_link_args=[],
    )


setup(
    ext_modules=cythonize(
        [
            extension("_kernels", sorted(map(str, Path("csrc").rglob("*.c")))),  # the only one that links the C library
            extension("_learning._source"),
            extension("_learning._distances"),
            extension("_learning._affinity_pass"),
            extension("_learning._projection"),
            extension("_learning._bits"),
            extension("_searching._store"),
            extension("_searching._search"),
            extension("_searching._weighted"),
            extension("_searching._linkage"),
            extension("_searching._rows"),
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
