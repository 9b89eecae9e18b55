"""Errors: Python's own kinds, with the library's facts; and images that cannot be read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

import xmore


def test_what_is_not_there(model: xmore.Model, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing.png"):
        model.encode_image(tmp_path / "nothing.png")
    with pytest.raises(FileNotFoundError) as caught:
        model.preprocess(tmp_path / "nothing.png")
    assert caught.value.filename == str(tmp_path / "nothing.png") and caught.value.errno == 2
    with pytest.raises(FileNotFoundError, match="nowhere"):
        xmore.Model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        xmore.Memory(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="ViT-B-32"):
        xmore.Model("ViT-B-32,openai", local_files_only=True)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": "no-such-model"}, "no model"),
        ({"name": "ViT-B-32", "pretrained": "nothing"}, "has no weights"),
        ({"name": TINY, "precision": "f64"}, "precision: expected one of f32, int8"),
        ({"name": TINY, "precision": "f16"}, "cpu does not compute in float16"),
        ({"name": TINY, "threads": 0}, "threads: expected 1 to"),
        ({"name": TINY, "device": "tpu"}, "device: expected auto, cpu"),
        ({"name": TINY, "orientation": "up"}, "orientation: expected one of exif, stored"),
        ({"name": TINY, "resize_mode": "no"}, "resize_mode: expected one of shortest"),
    ],
    ids=str,
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        xmore.Model(**arguments)


def test_more_arguments_that_make_no_sense(model: xmore.Model, pictures: list[Path]) -> None:
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        model.encode_image(pictures, batch_size=0)
    with pytest.raises(ValueError, match="on_error: expected one of raise, nan, skip"):
        model.encode_image(pictures, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="texts: expected a string, found int"):
        model.encode_text(["a", 3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="texts: expected strings, found int"):
        model.encode_text(3)  # type: ignore[arg-type]


def test_an_image_that_is_broken(model: xmore.Model, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with pytest.raises(xmore.ImageError, match=r"broken\.png"):
        model.encode_image([path])
    with pytest.raises(ValueError, match=r"images\[1\]: cannot decode"):
        model.encode_image([np.zeros((4, 4, 3), np.uint8), b"no image"])
    assert issubclass(xmore.ImageError, xmore.XmoreError) and issubclass(xmore.ImageError, ValueError)


def test_broken_images_among_others(model: xmore.Model, pictures: list[Path], tmp_path: Path) -> None:
    whole = pictures[0].read_bytes()
    broken = tmp_path / "cut.png"
    broken.write_bytes(whole[: len(whole) // 2])
    # Pillow reads the pixels only when they are asked for.
    cut = Image.open(io.BytesIO(broken.read_bytes()))
    images: list[Any] = [
        *pictures[:5],
        broken,
        b"none",
        *pictures[5:9],
        tmp_path / "absent.png",
        cut,
    ]
    expected = model.encode_image(pictures[:9])
    for batch_size in (2, 64):
        with pytest.warns(xmore.SkippedImages, match="4 of 13 images could not be read") as caught:
            rows = model.encode_image(images, batch_size, on_error="skip")
        np.testing.assert_array_equal(rows, expected)
        warning = caught[0].message
        assert isinstance(warning, xmore.SkippedImages)
        assert [index for index, _ in warning.skipped] == [5, 6, 11, 12] and warning.total == 13
        assert "absent.png" in warning.skipped[2][1]
        images[-1] = Image.open(io.BytesIO(broken.read_bytes()))
        with pytest.warns(xmore.SkippedImages):
            rows = model.encode_image(images, batch_size, on_error="nan")
        images[-1] = Image.open(io.BytesIO(broken.read_bytes()))
        assert rows.shape == (13, 16)
        assert np.isnan(rows).all(axis=1).tolist() == [index in (5, 6, 11, 12) for index in range(13)]
        np.testing.assert_array_equal(rows[~np.isnan(rows).any(axis=1)], expected)
    with pytest.warns(xmore.SkippedImages):
        assert np.isnan(model.encode_image(b"none", on_error="nan")).all()


def test_an_error_of_the_iterable_is_raised(model: xmore.Model, pictures: list[Path]) -> None:
    def images() -> Any:
        yield from pictures
        raise RuntimeError("the reader failed")

    for on_error in ("raise", "skip"):
        with pytest.raises(RuntimeError, match="the reader failed"):
            model.encode_image(images(), batch_size=4, on_error=on_error)  # type: ignore[arg-type]
    # Nothing is left behind: the next call works.
    assert model.encode_image(pictures).shape == (40, 16)


def test_an_error_of_a_file_object(model: xmore.Model) -> None:
    class Failing(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ConnectionResetError("the network went away")

    with pytest.raises(ConnectionResetError, match="went away"):
        model.encode_image(Failing())
    with pytest.warns(xmore.SkippedImages, match="went away"):
        assert len(model.encode_image([Failing()], on_error="skip")) == 0


def test_what_is_no_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is not a memory"):
        xmore.Memory(tmp_path)


def test_models_that_do_not_fit(memory: xmore.Memory, other_model: xmore.Model) -> None:
    with pytest.raises(xmore.ModelMismatch, match="was built with model"):
        xmore.Classifier(other_model, ["cat", "dog"], memory)
    with pytest.raises(xmore.ModelMismatch):
        xmore.Memory(memory.location, other_model).search(np.zeros((4, 4, 3), np.uint8))


def test_a_package_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, memory: xmore.Memory
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"to_arrow needs pyarrow.*xmore\[arrow\]"):
        memory.to_arrow()
