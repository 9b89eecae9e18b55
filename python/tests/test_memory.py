"""Memories: built, opened, searched, verified, and as arrays."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, picture
from PIL import Image

import xmore

FOLDERS = ("img_emb", "text_emb", "metadata", "lookup", "img_codes", "text_codes")


def test_a_memory_has_the_bytes_of_the_command_line(
    memory: xmore.Memory, source: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    command("memory", "build", source, "-o", tmp_path / "memory", "--model", f"local-dir:{TINY}")
    for folder in FOLDERS:
        expected = {path.name: path.read_bytes() for path in (tmp_path / "memory" / folder).iterdir()}
        found = {path.name: path.read_bytes() for path in (Path(memory.location) / folder).iterdir()}
        assert found == expected, folder


def test_what_a_memory_says_of_itself(memory: xmore.Memory, model: xmore.Model) -> None:
    assert len(memory) == 50 and memory.dim == 16
    assert memory.model_name == model.name and "50 pairs" in repr(memory)
    assert memory.model.fingerprint == model.fingerprint
    assert memory.captions[0] == "picture number 0" and memory.captions[-1] == memory.captions[49]
    assert memory.captions[:2] == ["picture number 0", "picture 0 told for the second time"]
    assert list(memory.captions)[3] == memory.captions[3] and memory.image_paths[0].endswith("000.png")
    for strings in (memory.captions, memory.image_paths):
        with pytest.raises(IndexError, match="pair 50 of 50"):
            strings[50]


def test_embeddings_are_the_mapped_file(memory: xmore.Memory) -> None:
    stored = memory.image_embeddings
    assert stored.shape == (50, 16) and stored.dtype == np.float16 and len(stored) == 50
    expected = np.load(Path(memory.location) / "img_emb/img_emb_0000.npy")
    whole = np.asarray(stored)
    np.testing.assert_array_equal(whole, expected)
    assert len(stored.parts) == 1 and whole.base is not None and np.shares_memory(whole, stored.parts[0])
    assert not whole.flags.writeable and not stored.parts[0].flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        whole[0, 0] = 1
    np.testing.assert_array_equal(stored[3], expected[3])
    np.testing.assert_array_equal(stored[-1], expected[-1])
    np.testing.assert_array_equal(stored[5:9], expected[5:9])
    np.testing.assert_array_equal(stored[40:5:-7], expected[40:5:-7])
    assert stored[9:5].shape == (0, 16)
    np.testing.assert_array_equal(np.asarray(stored, np.float32), expected.astype(np.float32))
    np.testing.assert_array_equal(
        np.asarray(memory.caption_embeddings), np.load(Path(memory.location) / "text_emb/text_emb_0000.npy")
    )
    with pytest.raises(IndexError, match="row 50 of 50"):
        stored[50]


def test_arrays_keep_the_mapping(memory: xmore.Memory) -> None:
    row = xmore.Memory(memory.location).image_embeddings.parts[0][7:8]
    gc.collect()
    np.testing.assert_array_equal(row[0], memory.image_embeddings[7])


def test_parts_are_arrays_each(memory: xmore.Memory) -> None:
    whole = np.asarray(memory.image_embeddings)
    parts = xmore.Embeddings([whole[:20], whole[20:21], whole[21:]], 16)
    assert len(parts) == 50 and parts.shape == (50, 16)
    for row in (0, 19, 20, 21, 49, -1):
        assert np.shares_memory(parts[row], whole[row])
    np.testing.assert_array_equal(np.asarray(parts), whole)
    np.testing.assert_array_equal(np.stack(list(parts)), whole)
    assert np.shares_memory(parts[3:9], whole) and not np.shares_memory(parts[3:30], whole)
    np.testing.assert_array_equal(parts[3:30], whole[3:30])
    with pytest.raises(ValueError, match="3 parts make one array only by a copy"):
        np.asarray(parts, copy=False)
    assert np.asarray(xmore.Embeddings([], 16)).shape == (0, 16)


def test_a_search_finds_what_the_command_line_finds(
    memory: xmore.Memory, pictures: list[Path], command: Callable[..., Any]
) -> None:
    for query, flags in ((pictures[7], ["--image", pictures[7]]), ("picture 3", ["--text", "picture 3"])):
        for by, where in (("image", "images"), ("caption", "captions")):
            printed = command(
                "memory", "search", memory.location, *flags, "--in", where, "-n", 6, "--format", "json"
            )
            expected = [xmore.Hit(**row) for row in json.loads(printed.stdout)]
            found = memory.search(query, 6, by)
            # A similarity is printed as float32.
            assert [hit._replace(similarity=np.float32(hit.similarity)) for hit in found] == [
                hit._replace(similarity=np.float32(hit.similarity)) for hit in expected
            ]


def test_queries_in_all_their_forms(memory: xmore.Memory, model: xmore.Model, pictures: list[Path]) -> None:
    image = model.encode_image(pictures[7])
    expected = memory.search(image, 5)
    assert isinstance(expected[0], xmore.Hit) and expected[0].image_path == str(pictures[7])
    with Image.open(pictures[7]) as opened:
        for query in (
            pictures[7],
            opened,
            np.asarray(opened),
            pictures[7].read_bytes(),
            image.astype(np.float64),
        ):
            assert memory.search(query, 5) == expected
    assert memory.search([pictures[7], pictures[7]], 5) == [expected, expected]
    assert memory.search(image[None], 5) == [expected]
    assert memory.search(["picture 3", "picture 3"], 5) == [memory.search("picture 3", 5)] * 2
    assert len(memory.search("picture", 1000)) == 50
    assert memory.search("picture", 0) == []


def test_a_filter_by_caption(memory: xmore.Memory) -> None:
    found = memory.search("picture", 50, caption_filter="second time")
    assert found and all("second time" in hit.caption for hit in found if isinstance(hit, xmore.Hit))
    with pytest.raises(ValueError, match="no caption of the memory matches"):
        memory.search("picture", caption_filter="nothing like this")
    with pytest.raises(ValueError, match="caption_filter: regex parse error"):
        memory.search("picture", caption_filter="(")
    with pytest.raises(ValueError, match="by: expected one of image, caption"):
        memory.search("picture", by="text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected embeddings \[n, dim\]"):
        memory.search(np.zeros((1, 1, 16)))
    with pytest.raises(ValueError):
        memory.search(np.zeros(15))


def test_a_memory_grows(model: xmore.Model, tmp_path: Path) -> None:
    rows = [f"{picture(tmp_path / f'{i}.png', i)},picture {i}" for i in range(6)]
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("image_path,caption\n" + "\n".join(rows[:4]) + "\n")
    second.write_text("image_path,caption\n" + "\n".join(rows) + "\n")
    memory = xmore.Memory.build([first], tmp_path / "memory", model, progress=False)
    before = memory.image_embeddings
    assert memory.append(second, progress=False) == 2
    assert len(memory) == 6 and len(before) == 4 and np.isfinite(np.asarray(before, np.float32)).all()
    assert memory.append([second], progress=False) == 0
    # The same sources again change nothing; others replace it if that is asked for.
    assert len(xmore.Memory.build([first], tmp_path / "memory", model, overwrite=True, progress=False)) == 4
    with pytest.raises(FileExistsError, match="already holds"):
        xmore.Memory.build([second], tmp_path / "memory2", model, progress=False)
        xmore.Memory.build([first], tmp_path / "memory2", model, progress=False)
        (tmp_path / "other.csv").write_text(f"image_path,caption\n{tmp_path / '0.png'},another\n")
        xmore.Memory.build([tmp_path / "other.csv"], tmp_path / "memory2", model, progress=False)


def test_what_cannot_be_read_is_told(model: xmore.Model, tmp_path: Path) -> None:
    rows = [f"{picture(tmp_path / f'{i}.png', i)},picture {i}" for i in range(12)]
    (tmp_path / "0.png").write_bytes(b"no picture")
    table = tmp_path / "pairs.csv"
    table.write_text("image_path,caption\n" + "\n".join(rows) + "\n")
    with pytest.warns(xmore.XmoreWarning, match=r"1 of 12 could not be read and were left out: .*0\.png"):
        memory = xmore.Memory.build(table, tmp_path / "memory", model, progress=False)
    assert len(memory) == 11
    with pytest.raises(xmore.XmoreError, match="1 of 12 could not be read, more than is allowed"):
        xmore.Memory.build(table, tmp_path / "strict", model, progress=False, max_skipped="0")
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(xmore.XmoreError, match="none of 12 could be read"):
        xmore.Memory.build(table, tmp_path / "nothing", model, progress=False)
    with pytest.raises(ValueError, match="max_skipped: expected a number, or a percentage"):
        xmore.Memory.build(table, tmp_path / "nothing", model, progress=False, max_skipped="many")


def test_files_that_are_left_out_are_told(model: xmore.Model, tmp_path: Path) -> None:
    picture(tmp_path / "pairs.png", 1)
    (tmp_path / "pairs.txt").write_text("a picture")
    (tmp_path / "other.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.warns(xmore.XmoreWarning, match="left out: 1 file: 1 HEIC"):
        xmore.Memory.build(tmp_path, tmp_path / "memory", model, progress=False)


def test_a_damaged_memory_is_found(memory: xmore.Memory, tmp_path: Path) -> None:
    assert memory.verify() == []
    shutil.copytree(memory.location, tmp_path / "memory")
    path = tmp_path / "memory/img_codes/img_codes_0000.bin"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    [finding] = xmore.Memory(tmp_path / "memory").verify()
    assert finding.path == str(path) and finding.derived


def test_a_table_of_arrow(memory: xmore.Memory) -> None:
    table = memory.to_arrow()
    assert table.column_names == ["image_path", "caption", "image_embedding", "caption_embedding"]
    assert table["caption"].to_pylist() == list(memory.captions)
    rows = np.stack(table["image_embedding"].to_numpy())
    np.testing.assert_array_equal(rows, np.asarray(memory.image_embeddings))
    # The values are the mapped file's, not a copy.
    [stored] = memory.image_embeddings.parts
    values = table["image_embedding"].chunk(0).flatten().buffers()[1]
    assert values.address == stored.__array_interface__["data"][0]
    assert memory.to_arrow(embeddings=False).num_columns == 2


def test_progress_is_shown_by_tqdm(source: Path, model: xmore.Model, tmp_path: Path, capsys: Any) -> None:
    xmore.Memory.build(source, tmp_path / "memory", model)
    assert "40/40" in capsys.readouterr().err
