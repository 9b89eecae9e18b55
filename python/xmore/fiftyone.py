"""A model for FiftyOne: ``dataset.apply_model`` with a classifier, ``dataset.compute_embeddings`` and searches by text with its model.

>>> from xmore.fiftyone import ClassifierModel
>>> dataset.apply_model(ClassifierModel(xmore.Classifier("lite", ["cat", "dog"])), label_field="xmore")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xmore import _optional
from xmore._types import Float32
from xmore.classifier import Classifier

_models = _optional.load("fiftyone.core.models", "fiftyone", "xmore.fiftyone")
_labels = _optional.load("fiftyone.core.labels", "fiftyone", "xmore.fiftyone")


class ClassifierModel(_models.Model, _models.EmbeddingsMixin, _models.PromptMixin):  # type: ignore[misc,name-defined]
    """A classifier in FiftyOne's protocol: a ``Classification`` with label and confidence for each image.

    Args:
        classifier: what answers.
        batch_size: images that are classified together, at most.
    """

    def __init__(self, classifier: Classifier, batch_size: int = 16) -> None:
        self._classifier = classifier
        self._batch_size = batch_size

    @property
    def media_type(self) -> str:
        """What it reads."""
        return "image"

    @property
    def ragged_batches(self) -> bool:
        """Whether a batch must not have images of several sizes; it may."""
        return False

    @property
    def transforms(self) -> None:
        """There are none: the model prepares images by itself."""
        return None

    @property
    def preprocess(self) -> bool:
        """Whether transforms are applied; there are none."""
        return False

    @preprocess.setter
    def preprocess(self, value: bool) -> None:
        pass

    @property
    def has_embeddings(self) -> bool:
        """Whether it gives embeddings; it does."""
        return True

    def predict(self, arg: Any) -> Any:
        """The answer to one image, an array ``[height, width, 3]``."""
        return self.predict_all([arg])[0]

    def predict_all(self, args: Sequence[Any]) -> list[Any]:
        """The answers to several images."""
        found = self._classifier.predict(args, self._batch_size)
        return [
            None
            if answer is None or answer.label is None
            else _labels.Classification(label=answer.label, confidence=answer.score)
            for answer in found
        ]

    def embed(self, arg: Any) -> Float32:
        """The unit embedding of one image."""
        row: Float32 = self.embed_all([arg])[0]
        return row

    def embed_all(self, args: Sequence[Any]) -> Float32:
        """float32 unit rows ``[n, dim]``."""
        return self._classifier.model.encode_image(list(args), self._batch_size)

    @property
    def can_embed_prompts(self) -> bool:
        """Whether texts have embeddings, too; they have."""
        return True

    def embed_prompt(self, arg: str) -> Float32:
        """The unit embedding of a text."""
        return self._classifier.model.encode_text(arg)

    def embed_prompts(self, args: Sequence[str]) -> Float32:
        """float32 unit rows ``[n, dim]`` of texts."""
        return self._classifier.model.encode_text(list(args))
