"""A model, its preprocessing and its tokenizer, with the calls of open_clip's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from xmore._types import Image
from xmore.model import Model
from xmore.open_clip.tensor import Tensor, like


class CLIP:
    """A dual encoder with the calls of open_clip's ``CLIP``: preprocessed images and tokens in, unit features out."""

    def __init__(self, model: Model) -> None:
        #: The model behind it.
        self.model = model
        #: ``visual.image_size``: the side of the images that :meth:`encode_image` takes.
        self.visual = SimpleNamespace(image_size=model.image_size)
        self.context_length = model.context_length

    @property
    def logit_scale(self) -> Tensor:
        """The logarithm of what cosines are multiplied with, as open_clip keeps it."""
        return np.asarray(math.log(self.model.logit_scale), dtype=np.float32).view(Tensor)

    @property
    def logit_bias(self) -> Tensor | None:
        """What is added to logits; ``None`` where it is nothing."""
        bias = self.model.logit_bias
        return None if bias == 0 else np.asarray(bias, dtype=np.float32).view(Tensor)

    def encode_image(self, image: Any, normalize: bool = False) -> Any:
        """Unit features ``[n, dim]`` of preprocessed images ``[n, 3, size, size]``.

        They are unit vectors whether or not ``normalize`` asks for it.
        """
        return like(image, self.model.encode_pixels(_batch(image, 4)))

    def encode_text(self, text: Any, normalize: bool = False) -> Any:
        """Unit features ``[n, dim]`` of tokens ``[n, context_length]``."""
        return like(text, self.model.encode_tokens(_batch(text, 2, np.int64)))

    def get_logits(self, image: Any, text: Any) -> tuple[Any, Any]:
        """Logits ``[images, texts]`` and their transpose."""
        bias = self.model.logit_bias
        logits = self.model.logit_scale * self.encode_image(image) @ self.encode_text(text).T + bias
        return logits, logits.T

    def __call__(self, image: Any = None, text: Any = None) -> tuple[Any, ...]:
        """Image features, text features, the factor of the logits, and their bias if there is one."""
        images = None if image is None else self.encode_image(image)
        texts = None if text is None else self.encode_text(text)
        scale = self.logit_scale.exp()
        bias = self.logit_bias
        return (images, texts, scale) if bias is None else (images, texts, scale, bias)

    def eval(self) -> CLIP:
        """The same: models do not train."""
        return self

    def to(self, device: Any = None, **_: Any) -> CLIP:
        """The same, if it is asked for where the model computes.

        Raises:
            ValueError: it is asked for elsewhere.
        """
        asked = str(device)
        computes = self.model.device
        if device is not None and asked.partition(":")[0] != computes.partition(":")[0]:
            raise ValueError(f"device: expected {computes}, where the model was created, found {asked}")
        return self

    def __repr__(self) -> str:
        return f"xmore.open_clip.CLIP({self.model!r})"


class Preprocess:
    """From an image, such as a PIL one or a path, to a :class:`Tensor` ``[3, size, size]``."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, image: Image) -> Tensor:
        return self._model.preprocess(image).view(Tensor)


class Tokenizer:
    """From texts to a :class:`Tensor` of int64 ``[n, context_length]``."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.context_length = model.context_length

    def __call__(self, texts: str | Iterable[str], context_length: int | None = None) -> Tensor:
        if context_length not in (None, self.context_length):
            raise ValueError(f"context_length: expected {self.context_length}, found {context_length}")
        return self._model.tokenize([texts] if isinstance(texts, str) else list(texts)).view(Tensor)


def _batch(values: Any, axes: int, kind: Any = np.float32) -> npt.NDArray[Any]:
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if array.ndim != axes:
        raise ValueError(
            f"expected {axes} axes, the first that of the batch, found the shape {list(array.shape)}"
        )
    return array.astype(kind, copy=False)
