"""Models, pictures and memories that the tests share. The model is a tiny one with random weights, in the repository."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import xmore

FIXTURES = Path(__file__).parents[2] / "crates/xmore-clip/tests/fixtures"
TINY = FIXTURES / "tiny"
#: Captions name these, so that a memory knows the labels.
LABELS = ["picture number", "a thing seen often", "the second time", "zebra"]


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing of the user's is read or written."""
    os.environ["XMORE_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def model() -> xmore.Model:
    return xmore.Model(TINY)


@pytest.fixture
def other_model() -> xmore.Model:
    """A model with other embeddings, of another length."""
    return xmore.Model(FIXTURES / "clip/vit_gelu/open_clip")


def picture(path: Path, seed: int) -> Path:
    """Writes a small picture; another seed gives another one."""
    numbers = random.Random(seed)
    red, green, blue = (numbers.randrange(256) for _ in range(3))
    width, height = numbers.randrange(20, 33), numbers.randrange(20, 33)
    image = Image.new("RGB", (width, height))
    image.putdata(
        [
            ((red + 7 * x + 5 * y) % 256, (green + 21 * x + 15 * y) % 256, (blue + 11 * x) % 256)
            for y in range(height)
            for x in range(width)
        ]
    )
    image.save(path)
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    return [picture(folder / f"{seed:03}.png", seed) for seed in range(40)]


@pytest.fixture(scope="session")
def source(pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of pairs: some images have two captions, some captions are of two images."""
    rows = ["image_path,caption"]
    for index, path in enumerate(pictures):
        rows.append(f"{path},{LABELS[index % 3]} {index % 7}")
        if index % 4 == 0:
            rows.append(f"{path},picture {index} told for the second time")
    table = tmp_path_factory.mktemp("source") / "pairs.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


@pytest.fixture(scope="session")
def memory(source: Path, model: xmore.Model, tmp_path_factory: pytest.TempPathFactory) -> xmore.Memory:
    return xmore.Memory.build(source, tmp_path_factory.mktemp("memories") / "memory", model, progress=False)


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line tool."""

    def run(*arguments: Any, check: bool = True) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "xmore", *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    return run
