"""Models: what they say of themselves, and embeddings of images and texts."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FIXTURES, TINY
from PIL import Image

import xmore


def test_a_model_says_what_it_is(model: xmore.Model) -> None:
    assert model.dim == 16
    assert len(model.fingerprint) == 64
    assert model.precision == "f32"
    assert model.device == "cpu"
    assert model.logit_scale > 1 and model.logit_bias == 0 and not model.trained_with_sigmoid
    assert "tiny" in model.name and "tiny" in repr(model)
    assert model.threads >= 1
    assert xmore.Model(TINY, threads=3).threads == 3


def test_embeddings_are_those_of_the_command_line(
    model: xmore.Model, pictures: list[Path], command: Callable[..., Any], tmp_path: Path
) -> None:
    command("embed", *pictures, "-o", tmp_path / "images.npy", "--model", f"local-dir:{TINY}")
    expected = np.load(tmp_path / "images.npy")
    found = model.encode_image(pictures)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)
    (tmp_path / "texts.txt").write_text("a cat\na dog in the snow\n")
    command(
        "embed",
        "--texts",
        tmp_path / "texts.txt",
        "-o",
        tmp_path / "texts.npy",
        "--model",
        f"local-dir:{TINY}",
    )
    np.testing.assert_array_equal(
        model.encode_text(["a cat", "a dog in the snow"]), np.load(tmp_path / "texts.npy")
    )


def test_one_image_gives_one_row(model: xmore.Model, pictures: list[Path]) -> None:
    row = model.encode_image(pictures[0])
    assert row.shape == (16,)
    np.testing.assert_allclose(np.linalg.norm(row), 1, atol=1e-6)
    np.testing.assert_array_equal(model.encode_image([pictures[0]]), row[None])
    assert model.encode_image([]).shape == (0, 16)
    assert model.encode_text("cat").shape == (16,)
    assert model.encode_text([]).shape == (0, 16)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batches_change_no_bit(model: xmore.Model, pictures: list[Path], batch_size: int) -> None:
    np.testing.assert_array_equal(model.encode_image(pictures, batch_size), model.encode_image(pictures))


def test_generators_are_read_as_they_are_needed(model: xmore.Model, pictures: list[Path]) -> None:
    """What is alive at once is a few batches, however many images there are."""
    alive, most = 0, 0

    class Counted:
        def __init__(self, path: Path) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            self._pixels = np.asarray(Image.open(path))

        @property
        def __array_interface__(self) -> dict[str, Any]:
            return dict(self._pixels.__array_interface__)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def images() -> Iterator[Counted]:
        for path in pictures * 10:
            yield Counted(path)

    found = model.encode_image(images(), batch_size=8)
    np.testing.assert_array_equal(found, np.tile(model.encode_image(pictures), (10, 1)))
    assert most <= 2, "an object is let go as soon as its pixels are copied"


def test_a_generator_may_encode_itself(pictures: list[Path]) -> None:
    model = xmore.Model(TINY, threads=1)
    expected = model.encode_image(pictures)

    def images() -> Iterator[Path]:
        for path, row in zip(pictures, expected, strict=True):
            np.testing.assert_array_equal(model.encode_image(path), row)
            yield path

    np.testing.assert_array_equal(model.encode_image(images(), batch_size=3), expected)


def test_templates(model: xmore.Model) -> None:
    found = model.encode_text(["cat", "dog"], "a photo of a {}.")
    np.testing.assert_array_equal(found, model.encode_text(["a photo of a cat.", "a photo of a dog."]))
    with pytest.raises(ValueError, match="has no `{}`"):
        model.encode_text("cat", "a photo")


def test_long_texts_are_cut_with_a_warning(model: xmore.Model) -> None:
    with pytest.warns(xmore.XmoreWarning, match="1 text was longer"):
        rows = model.encode_text(["word " * 500, "cat"])
    assert rows.shape == (2, 16)


def test_tokens(model: xmore.Model) -> None:
    tokens = model.tokenize(["a cat", "a dog"])
    assert tokens.dtype == np.int64 and tokens.shape == (2, model.context_length)
    np.testing.assert_array_equal(model.tokenize("a cat"), tokens[0])
    np.testing.assert_array_equal(model.encode_tokens(tokens), model.encode_text(["a cat", "a dog"]))


def test_preprocessing(model: xmore.Model, pictures: list[Path]) -> None:
    pixels = model.preprocess(pictures[0])
    side = model.image_size
    assert pixels.shape == (3, side, side) and pixels.dtype == np.float32 and pixels.flags.c_contiguous
    # A plain red image of the tower's size shows which axis the channels are on.
    red = model.preprocess(Image.new("RGB", (side, side), (255, 0, 0)))
    assert (red[0] > red[1].max()).all() and np.ptp(red[0]) == 0


def test_towers_of_any_aspect_get_patches() -> None:
    model = xmore.Model(FIXTURES / "towers/naflex")
    patches = model.preprocess(np.zeros((40, 90, 3), np.uint8))
    assert patches.ndim == 2 and len(patches) > 1


def test_precisions_are_other_models(model: xmore.Model, pictures: list[Path]) -> None:
    path = FIXTURES / "clip/vit_gelu/open_clip"
    whole, packed = xmore.Model(path), xmore.Model(path, precision="int8")
    assert packed.precision == "int8" and packed.fingerprint != whole.fingerprint
    a, b = whole.encode_image(pictures), packed.encode_image(pictures)
    assert not np.array_equal(a, b) and (np.sum(a * b, axis=1) > 0.9).all()


def test_auto_is_one_of_the_processors_precisions(pictures: list[Path]) -> None:
    path = FIXTURES / "clip/vit_gelu/open_clip"
    model = xmore.Model(path, precision="auto")
    assert model.precision in ("f32", "bf16")
    named = xmore.Model(path, precision=model.precision)
    assert model.name == named.name and model.fingerprint == named.fingerprint
    assert np.array_equal(model.encode_image(pictures), named.encode_image(pictures))
    assert pickle.loads(pickle.dumps(model)).precision == model.precision


def test_a_choice_of_orientation(pictures: list[Path]) -> None:
    path = FIXTURES / "preprocess/exif_rotated.jpg"
    upright, stored = (xmore.Model(TINY, orientation=orientation) for orientation in ("exif", "stored"))
    assert not np.array_equal(upright.preprocess(path), stored.preprocess(path))
    # A PIL image is turned in the same way, or not.
    for model in (upright, stored):
        with Image.open(path) as image:
            np.testing.assert_array_equal(model.preprocess(image), model.preprocess(path))
