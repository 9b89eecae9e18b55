"""The examples of README.md and docs/python.md run as they stand, with a tiny model in place of `lite`."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LABELS, TINY, picture

ROOT = Path(__file__).parents[2]
#: Commands that need a hub, or do not end.
NOT_RUN = ("xmore model fetch", "xmore serve", "curl", "--pretrained")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the examples name: photos, labeled photos, and pairs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XMORE_HOME", str(tmp_path / "home"))
    for name in ["photos", "pairs", "labeled-photos/dog", "labeled-photos/cat"]:
        (tmp_path / name).mkdir(parents=True)
    picture(tmp_path / "photo.png", 1).rename("photo.jpg")
    for n, name in enumerate("ab"):
        picture(tmp_path / f"photos/{name}.png", n).rename(f"photos/{name}.jpg")
    for n, name in enumerate(["dog", "cat", "cat"]):
        picture(tmp_path / f"labeled-photos/{name}/{n}.png", n)
    for n in range(6):
        picture(tmp_path / f"pairs/{n}.png", n)
        (tmp_path / f"pairs/{n}.txt").write_text(f"{LABELS[n % 3]} {n}")
    shutil.copytree(tmp_path / "pairs", tmp_path / "more")
    (tmp_path / "more-pairs.csv").write_text(
        "image_path,caption\nmore/0.png,a dog in the snow\nmore/1.png,a cat\n"
    )
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
@pytest.mark.filterwarnings("ignore::xmore.XmoreWarning")
def test_python_runs(page: str, folder: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert blocks
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block.replace('"lite"', repr(str(TINY))), page, "exec"), names)
    assert len(list((folder / "photos").iterdir())) == 2


def test_the_commands_of_the_readme_run(folder: Path) -> None:
    block = re.search(r"## Use it\n\n((?:    .*\n)+)", (ROOT / "README.md").read_text())
    assert block is not None
    ran = 0
    for line in block.group(1).splitlines():
        if any(name in line for name in NOT_RUN):
            continue
        words = shlex.split(line, comments=True)
        assert words[0] == "xmore"
        environment = {
            "XMORE_HOME": str(folder / "home"),
            "XMORE_MODEL": str(TINY),
            "PYTHONPATH": ":".join(sys.path),
        }
        done = subprocess.run(
            [sys.executable, "-m", "xmore", *words[1:]],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        ran += 1
    assert ran == 6
