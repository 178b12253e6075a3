"""The code of README and guide runs, in the order in which a reader pastes it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


def test_the_shell_blocks_are_the_demo_and_the_tests():
    demo, tests = blocks(README, "sh")
    assert "python -m aphash" in demo and "pytest" in tests


@pytest.mark.parametrize("document", ["README.md", "docs/GUIDE.md"])
def test_the_examples_run(document, tmp_path):
    examples = blocks((ROOT / document).read_text(), "python")
    assert len(examples) >= 3
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(examples)],
        capture_output=True, text=True, cwd=tmp_path, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    share = re.search(r"same (?:digit|label): (\S+)", done.stdout)
    assert float(share[1]) > 0.85


def test_what_the_readme_names_is_there():
    """Files that are linked, and names of aphash."""
    import aphash

    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"\b(VectorIndex|HammingIndex|interchange)\.(\w+)", README):
        assert hasattr(getattr(aphash, name[0]), name[1]), name


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150
