"""What the arguments of several functions are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Float16: TypeAlias = npt.NDArray[np.float16]

#: A path, bytes, a binary file object, a PIL image, or a uint8 array ``[height, width, 3]``: of numpy, or of any library that has
#: ``__array_interface__`` or ``__dlpack__``. The last have no common type.
Image: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | npt.NDArray[np.uint8] | Any"
)

#: One image, or an iterable of images, which is read as it is needed; an array ``[n, height, width, 3]`` is n images.
Images: TypeAlias = "Image | Iterable[Image]"

OnError: TypeAlias = Literal["raise", "nan", "skip"]
Precision: TypeAlias = Literal["f32", "int8", "f16", "bf16", "fp8", "auto"]
By: TypeAlias = Literal["image", "caption"]
