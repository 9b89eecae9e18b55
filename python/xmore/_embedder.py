"""Embeddings for engines that hand over batches of rows, such as Ray Data and Spark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from xmore import Model


class Embedder:
    """Adds columns of embeddings to batches of rows.

    The same object serves Ray Data (``dataset.map_batches(embedder)``) and Spark (``frame.mapInPandas(embedder, schema)``); for others
    ``embed_images`` and ``embed_texts`` take a column's values. It travels to workers as its arguments; the model is opened there, once for
    each process.

    Args:
        model: the name of a model, as for ``xmore.Model``.
        image: the column of images: paths, bytes, arrays, or whatever else ``Model.encode_image`` takes.
        text: the column of texts. One of the two may be left out.
        image_output: the column of image embeddings that is added: float32, ``model.dim`` values in each row; NaN where an image cannot be
            read.
        text_output: the same of texts.
        batch_size: images that are encoded together.
        options: further arguments of ``xmore.Model``.
    """

    def __init__(
        self,
        model: str = "lite",
        *,
        image: str | None = None,
        text: str | None = None,
        image_output: str = "image_embedding",
        text_output: str = "text_embedding",
        batch_size: int = 64,
        **options: Any,
    ) -> None:
        if image is None and text is None:
            raise ValueError("image, text: expected the name of at least one column, found none")
        self.name, self.options = model, options
        self.columns = {"image": (image, image_output), "text": (text, text_output)}
        self.batch_size = batch_size
        self._model: Model | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    @property
    def model(self) -> Model:
        """The model, opened when first asked for."""
        if self._model is None:
            self._model = Model(self.name, **self.options)
        return self._model

    def embed_images(self, images: Iterable[Any]) -> np.ndarray:
        """Embeddings of images, float32 ``[n, dim]``; NaN for those that cannot be read."""
        return self.model.encode_image(list(images), batch_size=self.batch_size, on_error="nan")

    def embed_texts(self, texts: Iterable[Any]) -> np.ndarray:
        """Embeddings of texts, float32 ``[n, dim]``."""
        return self.model.encode_text([str(text) for text in texts])

    def __call__(self, batch: Any) -> Any:
        """The batch with the further columns: a mapping of names to arrays, or a pandas frame. An iterator over these gives an iterator."""
        if isinstance(batch, Iterator):
            return map(self, batch)
        (image, image_output), (text, text_output) = self.columns["image"], self.columns["text"]
        added: dict[str, np.ndarray] = {}
        if image is not None:
            added[image_output] = self.embed_images(batch[image])
        if text is not None:
            added[text_output] = self.embed_texts(batch[text])
        if isinstance(batch, Mapping):
            return {**batch, **added}
        # A cell of a frame is a row of values.
        return batch.assign(**{name: list(rows) for name, rows in added.items()})
