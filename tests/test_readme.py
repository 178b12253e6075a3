import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.S | re.M)


def test_the_shell_blocks_are_the_demo_and_the_tests():
    demo, tests = blocks("sh")
    assert "python -m aphash" in demo and "pytest" in tests


def test_the_example_runs(tmp_path):
    (example,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.rsplit(" ", 1)[1]) > 0.85
