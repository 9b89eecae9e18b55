"""Evaluation: the figures of `xmore eval`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import picture

import xmore


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labeled")
    for label, seeds in (
        ("picture number", range(100, 106)),
        ("zebra", range(200, 205)),
        ("owl", range(300, 303)),
    ):
        (folder / label).mkdir()
        for seed in seeds:
            picture(folder / label / f"{seed}.png", seed)
    (folder / "owl" / "broken.png").write_bytes(b"no picture")
    return folder


def test_figures_are_those_of_the_command_line(
    labeled: Path, memory: xmore.Memory, command: Callable[..., Any]
) -> None:
    done = command(
        "eval", labeled, "--memory", memory.location, "--format", "json", "--max-skipped", "50%", "--no-cache"
    )
    expected = json.loads(done.stdout)
    found = xmore.evaluate(labeled, memory, cache=False)
    assert [row["method"] for row in found.rows] == [entry["method"] for entry in expected]
    for method, entry in zip(found.report["methods"], expected, strict=True):
        assert method == entry["details"]
        row = found[entry["method"]]
        for name, value in entry["metrics"].items():
            assert row[name] == value, name
    assert found.report["variants"][0]["variant"] == expected[-1]["variants"][0]["variant"]
    assert found.images == expected[0]["images"] == 15 and found.unreadable == 1


def test_methods_that_are_named(labeled: Path, memory: xmore.Memory) -> None:
    found = xmore.evaluate(labeled, memory, ["zero-shot", "xmore", "xmore-stream"], bootstrap=200)
    assert [row["method"] for row in found.rows] == ["zero-shot", "xmore", "xmore-stream"]
    row = found["xmore"]
    assert row["zero-shot_low"] <= row["zero-shot_difference"] <= row["zero-shot_high"]
    assert 0 <= row["zero-shot_p"] <= 1 and found["zero-shot"]["zero-shot_difference"] is None
    with pytest.raises(KeyError):
        found["captions"]


def test_without_a_memory(labeled: Path, model: xmore.Model) -> None:
    found = xmore.evaluate(labeled, model=model, methods="zero-shot")
    assert len(found.rows) == 1 and "zero-shot" in str(found)
    with pytest.raises(ValueError, match="method xmore needs a memory"):
        xmore.evaluate(labeled, model=model, methods=["xmore"])
    with pytest.raises(ValueError, match='no method "magic"'):
        xmore.evaluate(labeled, model=model, methods=["magic"])
    with pytest.raises(ValueError, match="dataset-prompts"):
        xmore.evaluate(labeled, model=model, methods=["dataset-prompts"])


def test_tables(labeled: Path, memory: xmore.Memory) -> None:
    found = xmore.evaluate(labeled, memory)
    frame = found.to_pandas()
    assert frame["method"].tolist() == [row["method"] for row in found.rows]
    html = found.to_html()
    assert html == found._repr_html_() and "xmore-kernel" in html and "…" in html
    assert found.dataset in str(found) and "1 of them unreadable" in str(found)
    assert "xmore-kernel" in repr(found)


def test_what_is_no_dataset(model: xmore.Model, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError)):
        xmore.evaluate(tmp_path / "nothing", model=model)
    with pytest.raises(ValueError):
        xmore.evaluate(tmp_path, model=model)
