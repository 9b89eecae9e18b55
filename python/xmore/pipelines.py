"""``pipeline("zero-shot-image-classification")`` with the call and the answer of transformers'."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from xmore._types import Float32, Image, Precision
from xmore.model import Model, opened

TASK = "zero-shot-image-classification"
#: transformers' own default.
HYPOTHESIS_TEMPLATE = "This is a photo of {}."
#: Bytes of an image that is fetched.
_MAX_DOWNLOAD = 64 << 20

Scores = list[dict[str, Any]]


def pipeline(
    task: str = TASK,
    model: Model | str | os.PathLike[str] = "lite",
    *,
    device: str = "cpu",
    precision: Precision = "f32",
    threads: int | None = None,
    batch_size: int = 64,
) -> ZeroShotImageClassification:
    """Sets up a pipeline as transformers' function of the same name does.

    Args:
        task: ``"zero-shot-image-classification"``.
        model: a :class:`xmore.Model`, or a name or path that it takes.
        device, precision, threads: those of :class:`xmore.Model`, where ``model`` is a name.
        batch_size: images that are encoded together, at most.

    Raises:
        ValueError: there is no such task or model.
    """
    if task != TASK:
        raise ValueError(f"task: expected {TASK}, found {task}")
    return ZeroShotImageClassification(opened(model, precision, threads=threads, device=device), batch_size)


class ZeroShotImageClassification:
    """Labels of images by free text: softmax over the labels, or with SigLIP a sigmoid for each."""

    def __init__(self, model: Model, batch_size: int = 64) -> None:
        #: The model.
        self.model = model
        self._batch_size = batch_size

    def __call__(
        self,
        image: Any = None,
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str = HYPOTHESIS_TEMPLATE,
        timeout: float | None = None,
        batch_size: int | None = None,
        *,
        images: Any = None,
    ) -> Any:
        """Scores of the labels for an image, best first.

        Args:
            image: an image (see :mod:`xmore`, or an ``http`` address), a list of them, or an iterator.
            candidate_labels: the labels.
            hypothesis_template: the prompt; each label goes where it has ``{}``.
            timeout: seconds that fetching an image may take.
            batch_size: images that are encoded together, at most.
            images: another name of ``image``.

        Returns:
            ``[{"score": float, "label": str}]``; a list of such for a list, an iterator for an iterator.

        Raises:
            ValueError: there is no image or no label.
        """
        given = image if image is not None else images
        if given is None:
            raise ValueError("image: expected an image or several, found none")
        if candidate_labels is None or isinstance(candidate_labels, str):
            raise ValueError(f"candidate_labels: expected a list of texts, found {candidate_labels!r}")
        labels = list(candidate_labels)
        if not labels:
            raise ValueError("candidate_labels: expected at least one label, found none")
        texts = self.model.encode_text([hypothesis_template.format(label) for label in labels])
        size = batch_size or self._batch_size
        if isinstance(given, (list, tuple)):
            return list(self._answers(given, labels, texts, timeout, size))
        if isinstance(given, Iterator) and not hasattr(given, "read"):
            return self._answers(given, labels, texts, timeout, size)
        return next(iter(self._answers([given], labels, texts, timeout, size)))

    def _answers(
        self, images: Iterable[Image], labels: list[str], texts: Float32, timeout: float | None, size: int
    ) -> Iterator[Scores]:
        batch: list[Any] = []
        for image in images:
            batch.append(_fetched(image, timeout))
            if len(batch) == size:
                yield from self._scores(batch, labels, texts)
                batch = []
        if batch:
            yield from self._scores(batch, labels, texts)

    def _scores(self, images: list[Any], labels: list[str], texts: Float32) -> Iterator[Scores]:
        rows = self.model.encode_image(images, batch_size=len(images))
        logits = self.model.logit_scale * (rows.astype(np.float64) @ texts.T) + self.model.logit_bias
        if self.model.trained_with_sigmoid:
            scores = np.exp(-np.logaddexp(0.0, -logits))
        else:
            scores = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        for row in scores.tolist():
            best_first = sorted(zip(row, labels, strict=True), key=lambda each: -each[0])
            yield [{"score": score, "label": label} for score, label in best_first]


def _fetched(image: Any, timeout: float | None) -> Any:
    """The image itself, or the bytes behind an ``http`` address."""
    if not isinstance(image, str) or not image.startswith(("http://", "https://")):
        return image
    with urllib.request.urlopen(image, timeout=timeout) as response:
        data: bytes = response.read(_MAX_DOWNLOAD + 1)
    if len(data) > _MAX_DOWNLOAD:
        raise ValueError(f"{image}: expected at most {_MAX_DOWNLOAD} bytes, found more")
    return data
