"""Estimators for scikit-learn: images to embeddings, and images to labels without training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from xmore import _optional
from xmore._types import Float32, Float64
from xmore.classifier import Classifier
from xmore.model import Model, opened

_base = _optional.load("sklearn.base", "sklearn", "xmore.sklearn")
_validation = _optional.load("sklearn.utils.validation", "sklearn", "xmore.sklearn")


class _ReadsImages(_base.BaseEstimator):  # type: ignore[misc,name-defined]
    """An estimator whose X are images; see :mod:`xmore` for what an image may be."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        tags.requires_fit = True
        return tags

    def _images(self, X: Any) -> list[Any]:
        """X as a list, a column of a table as its values."""
        if isinstance(X, (str, bytes)) or not hasattr(X, "__len__"):
            raise ValueError(f"X: expected a list or an array of images, found {type(X).__name__}")
        if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == 1:
            X = X[:, 0]
        if hasattr(X, "iloc") and getattr(X, "ndim", 1) == 2 and X.shape[1] == 1:
            X = X.iloc[:, 0]
        if not isinstance(X, np.ndarray) or X.ndim == 4:
            return list(X)
        if X.ndim != 1:
            raise ValueError(
                f"X: expected images, one-dimensional or [n, height, width, 3], found the shape {list(X.shape)}"
            )
        return list(X)


class ImageEncoder(_base.TransformerMixin, _ReadsImages):  # type: ignore[misc,name-defined]
    """A transformer from images to unit embeddings, for a ``Pipeline`` with any classifier behind it.

    Args:
        model: a :class:`xmore.Model`, or a name or path that it takes.
        precision: number format, where ``model`` is a name.
        batch_size: images that are encoded together, at most.
        on_error: what becomes of an image that cannot be read: ``"raise"``, or a row of ``"nan"``.
    """

    def __init__(
        self,
        model: Model | str = "lite",
        *,
        precision: str = "f32",
        batch_size: int = 64,
        on_error: str = "raise",
    ) -> None:
        self.model = model
        self.precision = precision
        self.batch_size = batch_size
        self.on_error = on_error

    def fit(self, X: Any = None, y: Any = None) -> ImageEncoder:
        """Opens the model; nothing is learned."""
        if self.on_error not in ("raise", "nan"):
            raise ValueError(f"on_error: expected raise or nan, found {self.on_error}")
        self.model_ = opened(self.model, self.precision)  # type: ignore[arg-type]
        self.n_features_out_ = self.model_.dim
        return self

    def transform(self, X: Any) -> Float32:
        """float32 unit rows ``[n, dim]``."""
        _validation.check_is_fitted(self)
        images = self._images(X)
        if not images:
            return np.empty((0, self.n_features_out_), dtype=np.float32)
        return self.model_.encode_image(images, self.batch_size, self.on_error)  # type: ignore[arg-type]

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[Any]:
        """``embedding0`` and so on."""
        _validation.check_is_fitted(self)
        return np.array([f"embedding{n}" for n in range(self.n_features_out_)], dtype=object)


class ZeroShotClassifier(_base.ClassifierMixin, _ReadsImages):  # type: ignore[misc,name-defined]
    """A classifier that needs no training: its labels' names are enough, with a memory captions of similar images help.

    Args:
        model: a :class:`xmore.Model`, or a name or path; ``None`` for the memory's own.
        labels: as :class:`xmore.Classifier` takes them; ``None`` for the distinct values of the ``y`` that ``fit`` gets.
        memory: a :class:`xmore.Memory`, or its folder.
        method: as in :class:`xmore.Classifier`.
        templates: as in :class:`xmore.Classifier`.
        k: captions that are kept for each image.
        batch_size: images that are encoded together, at most.
    """

    def __init__(
        self,
        model: Model | str | None = "lite",
        labels: Iterable[str] | Mapping[str, Any] | None = None,
        *,
        memory: Any = None,
        method: str = "auto",
        templates: str | Iterable[str] | None = None,
        k: int = 16,
        batch_size: int = 64,
    ) -> None:
        self.model = model
        self.labels = labels
        self.memory = memory
        self.method = method
        self.templates = templates
        self.k = k
        self.batch_size = batch_size

    def fit(self, X: Any = None, y: Any = None) -> ZeroShotClassifier:
        """Makes the labels ready; images are not looked at.

        Raises:
            ValueError: there are no labels, or ``y`` has a value that is none of them.
        """
        labels = self.labels
        if labels is None:
            if y is None:
                raise ValueError("labels: expected labels, or y to take them from; found neither")
            labels = [str(value) for value in np.unique(np.asarray(y))]
        self.classifier_ = Classifier(self.model, labels, self.memory, self.method, self.templates, self.k)
        names = np.array(self.classifier_.labels)
        self._columns = np.argsort(names, kind="stable")
        self.classes_ = names[self._columns]
        unknown = set() if y is None else {str(value) for value in np.asarray(y)} - set(names.tolist())
        if unknown:
            raise ValueError(f"y: expected the labels {', '.join(names)}, found {', '.join(sorted(unknown))}")
        return self

    def predict_proba(self, X: Any) -> Float64:
        """float64 ``[n, classes]``, in the order of ``classes_``."""
        _validation.check_is_fitted(self)
        images = self._images(X)
        if not images:
            return np.empty((0, len(self.classes_)))
        return self.classifier_.predict(images, self.batch_size).to_numpy()[:, self._columns]

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The best label of each image."""
        best: npt.NDArray[Any] = self.classes_[np.argmax(self.predict_proba(X), axis=1)]
        return best
