"""Answers: of one image, and of many."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from xmore import _html, _native, _optional, _text
from xmore._types import Float64


class Caption(NamedTuple):
    """A caption of the memory that was kept for an image."""

    #: Row of the pair in the memory, or the remote index's id.
    id: int
    #: The caption.
    caption: str
    #: The label that it votes for.
    vote: str
    #: Cosine of the query image and the caption.
    similarity: float
    #: Cosine of the query image and the pair's image.
    image_similarity: float
    #: The pair's image, as the memory names it.
    image_path: str


class Prediction:
    """The answer to one image. In a notebook it shows itself with its captions."""

    __slots__ = ("_data", "_label", "_labels", "_score")

    def __init__(self, answer: _native.Answer, labels: Sequence[str]) -> None:
        self._data: _native.Answer | dict[str, Any] = answer
        self._labels = labels
        self._label = answer.label
        self._score = answer.score

    @property
    def label(self) -> str | None:
        """The best label; ``None`` where its score or similarity is below the least that was asked for."""
        return self._label

    @property
    def score(self) -> float | None:
        """The best label's score."""
        return self._score

    @property
    def method(self) -> str:
        """The method that answered."""
        return str(self._fields()["method"])

    @property
    def scores(self) -> dict[str, float]:
        """The answer over all labels, best first."""
        return self._ordered(self._fields()["scores"])

    @property
    def image_scores(self) -> dict[str, float]:
        """The distribution by the image alone, best first."""
        return self._ordered(self._fields()["image_distribution"])

    @property
    def caption_scores(self) -> dict[str, float] | None:
        """The distribution by the captions alone, best first; ``None`` without captions."""
        distribution = self._fields()["caption_distribution"]
        return None if distribution is None else self._ordered(distribution)

    @property
    def confidences(self) -> dict[str, float | None]:
        """1 − entropy / ln(labels) of the image's distribution (``"image"``) and of the captions' (``"captions"``)."""
        fields = self._fields()
        return {"image": fields["image_confidence"], "captions": fields["caption_confidence"]}

    @property
    def image_weight(self) -> float | None:
        """What the method ``xmore`` weighs the image with; the captions have the rest. ``None`` without captions."""
        weight = self._fields()["image_weight"]
        return None if weight is None else float(weight)

    @property
    def gate(self) -> float | None:
        """``xmore-kernel``: how far the captions around such images are taken into account, from 0 to 1."""
        gate = self._fields()["memory_gate"]
        return None if gate is None else float(gate)

    @property
    def captions(self) -> list[Caption]:
        """The captions that were kept, best first."""
        return [Caption(**caption) for caption in self._fields()["captions"]]

    def to_dict(self) -> dict[str, Any]:
        """All of it: what ``xmore classify --format json`` prints, but for the image's name."""
        return dict(self._fields())

    def explain(self) -> str:
        """Why this is the answer, in a few lines."""
        return _text.explanation(self)

    def _fields(self) -> dict[str, Any]:
        if isinstance(self._data, dict):
            return self._data
        fields: dict[str, Any] = json.loads(self._data.json())
        self._data = fields
        return fields

    def _ordered(self, distribution: dict[str, float]) -> dict[str, float]:
        # Equal ones stay in the labels' order.
        scores = [(label, distribution[label]) for label in self._labels]
        return dict(sorted(scores, key=lambda each: -each[1]))

    def _vector(self) -> Float64:
        """float64 ``[labels]``: the scores in the labels' order."""
        if isinstance(self._data, dict):
            return np.array([self._data["scores"][label] for label in self._labels])
        return self._data.scores()

    def __repr__(self) -> str:
        score = "" if self.score is None else f", score={self.score:.3f}"
        return f"xmore.Prediction({self.label!r}{score})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prediction) and self._fields() == other._fields()

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Callable[..., Prediction], tuple[Any, ...]]:
        return _restore, (self._fields(), list(self._labels), self._label, self._score)

    def _repr_html_(self) -> str:
        return _html.prediction(self)


def _restore(fields: dict[str, Any], labels: list[str], label: str | None, score: float | None) -> Prediction:
    prediction = Prediction.__new__(Prediction)
    prediction._data, prediction._labels = fields, labels
    prediction._label, prediction._score = label, score
    return prediction


class Predictions(Sequence["Prediction | None"]):
    """The answers to several images, in their order; ``None`` for one that could not be read, with ``on_error="nan"``."""

    def __init__(self, predictions: Sequence[Prediction | None], labels: Sequence[str]) -> None:
        self._predictions = list(predictions)
        #: The labels, in the order of the columns of :meth:`to_numpy`.
        self.labels = list(labels)

    @overload
    def __getitem__(self, index: int) -> Prediction | None: ...
    @overload
    def __getitem__(self, index: slice) -> Predictions: ...
    def __getitem__(self, index: int | slice) -> Prediction | Predictions | None:
        if isinstance(index, slice):
            return Predictions(self._predictions[index], self.labels)
        return self._predictions[index]

    def __len__(self) -> int:
        return len(self._predictions)

    def __iter__(self) -> Iterator[Prediction | None]:
        return iter(self._predictions)

    def to_numpy(self) -> Float64:
        """float64 ``[images, labels]``: the scores, in the order of :attr:`labels`; NaN where there is no answer."""
        scores = np.full((len(self), len(self.labels)), np.nan)
        for row, prediction in zip(scores, self, strict=True):
            if prediction is not None:
                row[:] = prediction._vector()
        return scores

    def to_arrow(self) -> Any:
        """A ``pyarrow.Table`` with a row for each image: label, score, confidences, weights, and the captions.

        Raises:
            ImportError: pyarrow is not installed.
        """
        pyarrow = _optional.load("pyarrow", "arrow", "to_arrow")
        caption = pyarrow.struct(
            [
                ("id", pyarrow.uint64()),
                ("caption", pyarrow.string()),
                ("vote", pyarrow.string()),
                ("similarity", pyarrow.float32()),
                ("image_similarity", pyarrow.float32()),
                ("image_path", pyarrow.string()),
            ]
        )
        double = pyarrow.float64()
        schema = pyarrow.schema(
            [
                ("label", pyarrow.string()),
                ("score", double),
                ("method", pyarrow.string()),
                ("image_confidence", double),
                ("caption_confidence", double),
                ("image_weight", double),
                ("gate", double),
                ("captions", pyarrow.list_(caption)),
            ]
        )
        return pyarrow.Table.from_pylist([_row(prediction) for prediction in self], schema=schema)

    def to_pandas(self) -> Any:
        """The same as a ``pandas.DataFrame``.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = _optional.load("pandas", "pandas", "to_pandas")
        rows = [_row(prediction) for prediction in self]
        return pandas.DataFrame(rows, columns=list(_row(None)))

    def __repr__(self) -> str:
        return f"<xmore.Predictions: {len(self)} images, {len(self.labels)} labels>"

    def _repr_html_(self) -> str:
        return _html.predictions(self)


def _row(prediction: Prediction | None) -> dict[str, Any]:
    if prediction is None:
        columns = [
            "label",
            "score",
            "method",
            "image_confidence",
            "caption_confidence",
            "image_weight",
            "gate",
        ]
        return {**dict.fromkeys(columns), "captions": None}
    confidences = prediction.confidences
    return {
        "label": prediction.label,
        "score": prediction.score,
        "method": prediction.method,
        "image_confidence": confidences["image"],
        "caption_confidence": confidences["captions"],
        "image_weight": prediction.image_weight,
        "gate": prediction.gate,
        "captions": [caption._asdict() for caption in prediction.captions],
    }
