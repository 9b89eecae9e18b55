"""Images in all their forms: each gives what its file gives, to the bit."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FIXTURES, TINY, picture
from PIL import Image

import xmore

FILES = sorted((FIXTURES / "preprocess").glob("*.*g")) + sorted((FIXTURES / "preprocess").glob("*.webp"))
SMALL = FIXTURES / "images/wide.png"


class DlPack:
    """An array of a library that numpy does not know."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array
        self.ndim = array.ndim

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


class Interface:
    """An object with numpy's array interface and nothing else."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.__array_interface__ = array.__array_interface__
        self._owner = array


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_pil_image_is_as_its_file(model: xmore.Model, path: Path) -> None:
    if path.name == "keep_rgb.jpg" and not _pillow_reads(path):
        pytest.skip("this Pillow decodes it otherwise")
    with Image.open(path) as image:
        np.testing.assert_array_equal(model.preprocess(image), model.preprocess(path))
        np.testing.assert_array_equal(model.encode_image(image), model.encode_image(path))


def _pillow_reads(path: Path) -> bool:
    with Image.open(path) as image:
        return image.mode == "RGB"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"])
def test_modes_of_pil_images(model: xmore.Model, tmp_path: Path, mode: str) -> None:
    original = Image.open(SMALL)
    image = (
        original.convert("I").point(lambda v: v * 257).convert("I;16")
        if mode == "I;16"
        else original.convert(mode)
    )
    # TIFF's CMYK differs from Pillow's by rounding.
    suffix = {"CMYK": None, "YCbCr": None, "HSV": None, "PA": None}.get(mode, ".png")
    found = model.preprocess(image)
    if suffix is None:
        np.testing.assert_array_equal(found, model.preprocess(np.asarray(image.convert("RGB"))))
        return
    image.save(tmp_path / f"image{suffix}")
    np.testing.assert_array_equal(found, model.preprocess(tmp_path / f"image{suffix}"))


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_all_orientations_of_pil_images(model: xmore.Model, tmp_path: Path, value: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x112] = value
    path = tmp_path / f"image{suffix}"
    picture(tmp_path / "plain.png", 5)
    with Image.open(tmp_path / "plain.png") as image:
        image.save(path, exif=exif)
    with Image.open(path) as image:
        np.testing.assert_array_equal(model.preprocess(image), model.preprocess(path))


def test_transparency_is_treated_as_the_model_has_it(tmp_path: Path) -> None:
    """A model that blends transparency with white does so for PIL images, too, and one that drops it does not."""
    folder = tmp_path / "drop"
    folder.mkdir()
    for file in TINY.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["alpha"] = "drop"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    white, drop = xmore.Model(TINY), xmore.Model(folder)
    differs = False
    for name in (
        "rgba.png",
        "grey_alpha.png",
        "palette_transparent.png",
        "palette_alphas.png",
        "rgb_key.png",
    ):
        path = FIXTURES / "preprocess" / name
        with Image.open(path) as image:
            np.testing.assert_array_equal(white.preprocess(image), white.preprocess(path), err_msg=name)
            np.testing.assert_array_equal(drop.preprocess(image), drop.preprocess(path), err_msg=name)
        differs |= not np.array_equal(white.preprocess(path), drop.preprocess(path))
    assert differs


def test_every_form_gives_the_same_row(model: xmore.Model) -> None:
    path = FIXTURES / "preprocess/rgb_420.jpg"
    expected = model.encode_image(path)
    data = path.read_bytes()
    with Image.open(path) as image:
        pixels = np.asarray(image)
    forms: list[Any] = [
        str(path),
        path,
        data,
        bytearray(data),
        memoryview(data),
        io.BytesIO(data),
        pixels,
        np.asfortranarray(pixels),
        pixels[:, ::-1][:, ::-1],
        Interface(pixels),
        DlPack(pixels.copy()),
    ]
    with open(path, "rb") as file:
        forms.append(file)
        for form in forms:
            if isinstance(form, io.IOBase):
                form.seek(0)
            np.testing.assert_array_equal(model.encode_image(form), expected, err_msg=str(type(form)))
            if isinstance(form, io.IOBase):
                form.seek(0)
            np.testing.assert_array_equal(model.encode_image([form]), expected[None])


def test_arrays_of_images_are_several(model: xmore.Model) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), np.uint8)
    rows = model.encode_image(list(images))
    np.testing.assert_array_equal(model.encode_image(images), rows)
    paths = np.array([str(SMALL), str(SMALL)])
    assert model.encode_image(paths).shape == (2, 16)


@pytest.mark.parametrize(
    ("image", "error", "text"),
    [
        (
            np.zeros((4, 4, 3), np.float32),
            TypeError,
            r"expected a uint8 array of shape \[height, width, 3\], found float32",
        ),
        (np.zeros((3, 4, 4), np.uint8), ValueError, r"found uint8 of shape \[3, 4, 4\]"),
        (np.zeros((4, 4), np.uint8), ValueError, r"found uint8 of shape \[4, 4\]"),
        (np.zeros((4, 0, 3), np.uint8), ValueError, "at least one pixel, found 0x4"),
        (np.broadcast_to(np.uint8(0), (1, 70_000, 3)), ValueError, "70000x1 pixels, at most"),
        (Image.new("F", (4, 4)), ValueError, "mode F has no fixed range"),
        (io.StringIO("text"), TypeError, "opened in binary mode"),
        ([3], TypeError, "expected a path, bytes, a file object, a PIL image"),
        (3, TypeError, "found int"),
        (None, TypeError, "found NoneType"),
    ],
    ids=str,
)
def test_what_is_no_image_is_refused(
    model: xmore.Model, image: Any, error: type[Exception], text: str
) -> None:
    for on_error in ("raise", "nan", "skip"):
        with pytest.raises(error, match=text):
            model.encode_image(image, on_error=on_error)


def test_pil_is_not_imported(command: Any) -> None:
    import subprocess
    import sys

    code = "import sys, xmore; sys.exit([n for n in ('PIL', 'pandas', 'pyarrow', 'tqdm', 'torch') if n in sys.modules] or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)
