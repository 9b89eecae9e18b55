"""Classification of images by labels in plain words."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from xmore import _native
from xmore._errors import SkippedImages, XmoreWarning
from xmore._types import Image, Images, OnError
from xmore.memory import Memory, opened_memory
from xmore.model import Model, opened
from xmore.prediction import Prediction, Predictions

if TYPE_CHECKING:
    from typing_extensions import Self


class Classifier(_native.Classifier):
    """Labels that are ready for a model, and for a memory if there is one: called with an image, it answers.

    Answers are those of ``xmore classify``, to the bit. It may be used from several threads, and pickles by what it was made from.

    Args:
        model: a :class:`Model`, or a model's name; ``None`` for the memory's own.
        labels: names; a dict with a prompt, or several, for each name; dicts with ``label``, ``prompts`` and ``synonyms``; a string of names
            between commas; or the path (a :class:`os.PathLike`) of a file of labels.
        memory: a :class:`Memory`, or its folder or URL.
        method: ``"auto"``, which is ``xmore-kernel`` with a memory where it is possible, else ``xmore``, and ``zero-shot`` without; or
            ``zero-shot``, ``templates``, ``captions``, ``equal``, ``xmore``, ``xmore-kernel``.
        templates: prompts with ``{}`` where the label goes; several are averaged. ``"a photo of a {}."`` if ``None``.
        k: captions that are kept for each image.
        neighbors: nearest pairs among which they are chosen.
        caption_filter: a regular expression; only pairs whose caption matches are looked at.
        scores: ``"softmax"``, one distribution over the labels; or ``"sigmoid"``, each label by itself, with models like SigLIP.
        top: labels in :meth:`Prediction.to_dict`'s ``predictions``.
        min_score: least score of a best label to be the answer; below it :attr:`Prediction.label` is ``None``.
        min_similarity: the same for the cosine of image and label.

    Raises:
        ModelMismatch: the memory has no embeddings by the model.
        ValueError: labels, method or options that make no sense.
    """

    def __new__(
        cls,
        model: Model | str | os.PathLike[str] | None,
        labels: Iterable[str]
        | Mapping[str, str | Iterable[str]]
        | Iterable[Mapping[str, Any]]
        | os.PathLike[str],
        memory: Memory | str | os.PathLike[str] | None = None,
        method: str = "auto",
        templates: str | Iterable[str] | None = None,
        k: int = 16,
        *,
        neighbors: int = 128,
        caption_filter: str | None = None,
        scores: Literal["softmax", "sigmoid"] = "softmax",
        top: int = 5,
        min_score: float | None = None,
        min_similarity: float | None = None,
    ) -> Self:
        memory = opened_memory(memory)
        if model is None:
            if memory is None:
                raise ValueError("model: expected a model, or a memory whose model is taken; found neither")
            model = memory.model
        model = opened(model)
        given = (
            None if templates is None else ([templates] if isinstance(templates, str) else list(templates))
        )
        self = super().__new__(
            cls,
            model,
            labels,
            None if memory is None else memory._native,
            method,
            given,
            k,
            neighbors,
            caption_filter,
            scores,
            top,
            min_score,
            min_similarity,
        )
        self.model, self.memory = model, memory
        self._arguments = {
            "method": self.method,
            "templates": given,
            "k": k,
            "neighbors": neighbors,
            "caption_filter": caption_filter,
            "scores": scores,
            "top": top,
            "min_score": min_score,
            "min_similarity": min_similarity,
        }
        self._names = self.labels
        for warning in self.warnings:
            warnings.warn(warning, XmoreWarning, stacklevel=2)
        return self

    #: The model.
    model: Model
    #: The memory, if there is one.
    memory: Memory | None
    _arguments: dict[str, Any]
    _names: list[str]

    def __call__(self, image: Image) -> Prediction:
        """Classifies one image; see :mod:`xmore` for what an image may be.

        Raises:
            FileNotFoundError, OSError, ImageError: it cannot be read.
            TypeError: it is no image.
        """
        return Prediction(super().classify(image), self._names)

    def predict(
        self,
        images: Images,
        batch_size: int = 64,
        on_error: OnError = "raise",
        *,
        progress: bool = False,
    ) -> Predictions:
        """Classifies images, each with the answer that it has alone; arguments are those of :meth:`Model.encode_image`.

        With ``on_error="nan"`` an image that cannot be read has ``None`` in its place, with ``"skip"`` none.
        """
        answers, skipped = super().classify_all(images, batch_size, on_error, progress)
        if skipped:
            total = len(answers) + (len(skipped) if on_error == "skip" else 0)
            warnings.warn(SkippedImages(skipped, total), stacklevel=2)
        given = [None if answer is None else Prediction(answer, self._names) for answer in answers]
        return Predictions(given, self._names)

    def __repr__(self) -> str:
        memory = "" if self.memory is None else f", memory={self.memory.location!r}"
        return f"xmore.Classifier({self.model.name!r}, {len(self._names)} labels{memory}, method={self.method!r})"

    def __reduce__(self) -> tuple[Callable[..., Classifier], tuple[Any, ...]]:
        return _remake, (type(self), self.model, self.label_fields(), self.memory, self._arguments)


def _remake(
    cls: type[Classifier],
    model: Model,
    labels: list[dict[str, Any]],
    memory: Memory | None,
    arguments: dict[str, Any],
) -> Classifier:
    with warnings.catch_warnings():
        # They were told where it was made first.
        warnings.simplefilter("ignore", XmoreWarning)
        return cls(model, labels, memory, **arguments)
