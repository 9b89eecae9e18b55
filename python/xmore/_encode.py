"""``Model.encode``, with the call of sentence-transformers'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xmore import _optional
from xmore._types import Float32

if TYPE_CHECKING:
    from xmore.model import Model


def encode(
    model: Model,
    sentences: str | Any | Sequence[str | Any],
    batch_size: int,
    progress: bool,
    convert_to_tensor: bool,
) -> Any:
    """Unit rows of texts (``str``) and images (anything else), in the order given; see :meth:`xmore.Model.encode`."""
    single = isinstance(sentences, (str, bytes)) or not isinstance(sentences, Sequence)
    items: list[Any] = [sentences] if single else list(sentences)
    rows: Float32 = np.empty((len(items), model.dim), dtype=np.float32)
    texts = [n for n, item in enumerate(items) if isinstance(item, str)]
    images = [n for n, item in enumerate(items) if not isinstance(item, str)]
    if texts:
        rows[texts] = model.encode_text([items[n] for n in texts], progress=progress)
    if images:
        rows[images] = model.encode_image([items[n] for n in images], batch_size, progress=progress)
    result = rows[0] if single else rows
    if convert_to_tensor:
        return _optional.load("torch", "torch", "convert_to_tensor").from_numpy(result)
    return result
