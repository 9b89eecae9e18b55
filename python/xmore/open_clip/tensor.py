"""A numpy array with those methods of torch's tensors that code around CLIP uses."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt


class Tensor(np.ndarray):
    """A numpy array that also answers to torch's names; ``dim`` is numpy's ``axis``, ``keepdim`` its ``keepdims``."""

    def unsqueeze(self, dim: int) -> Tensor:
        """The same with an axis of length one at ``dim``."""
        return np.expand_dims(self, dim).view(Tensor)

    def norm(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Euclidean norms along ``dim``; of the whole without it."""
        norms = np.linalg.norm(np.asarray(self), axis=dim, keepdims=keepdim)
        return np.asarray(norms, dtype=self.dtype).view(Tensor)

    def softmax(self, dim: int) -> Tensor:
        """The softmax along ``dim``."""
        values = np.asarray(self)
        shifted = np.exp(values - values.max(axis=dim, keepdims=True))
        return _tensor(shifted / shifted.sum(axis=dim, keepdims=True))

    def sigmoid(self) -> Tensor:
        """1 / (1 + exp(-x))."""
        small = np.exp(-np.abs(np.asarray(self)))
        return _tensor(np.where(self >= 0, 1 / (1 + small), small / (1 + small)))

    def exp(self) -> Tensor:
        """e to the power of each value."""
        return _tensor(np.exp(self))

    def topk(self, k: int, dim: int = -1) -> tuple[Tensor, Tensor]:
        """The ``k`` largest values along ``dim``, largest first, and their places."""
        places = np.argsort(-np.asarray(self), axis=dim, kind="stable").take(range(k), axis=dim)
        return _tensor(np.take_along_axis(self, places, axis=dim)), _tensor(places)

    def t(self) -> Tensor:
        """The transpose of a matrix."""
        return _tensor(self.T)

    def mean(self, dim: Any = None, keepdim: bool = False, **more: Any) -> Any:  # type: ignore[override]
        """The mean along ``dim``."""
        return super().mean(**_numpy_names(dim, keepdim, more))

    def sum(self, dim: Any = None, keepdim: bool = False, **more: Any) -> Any:  # type: ignore[override]
        """The sum along ``dim``."""
        return super().sum(**_numpy_names(dim, keepdim, more))

    def argmax(self, dim: Any = None, keepdim: bool = False, **more: Any) -> Any:  # type: ignore[override]
        """The place of the largest value along ``dim``."""
        return super().argmax(**_numpy_names(dim, keepdim, more))

    def numpy(self) -> npt.NDArray[Any]:
        """The plain array."""
        return self.view(np.ndarray)

    def float(self) -> Tensor:
        """The same in 32-bit floats."""
        return self.astype(np.float32, copy=False).view(Tensor)

    def detach(self) -> Tensor:
        """The same: there are no gradients."""
        return self

    def cpu(self) -> Tensor:
        """The same: it lies in the processor's memory."""
        return self

    def to(self, device: Any = None, **_: Any) -> Tensor:
        """The same: where a model computes is the model's own matter."""
        return self


def _tensor(values: Any) -> Tensor:
    """Any values as a tensor."""
    tensor: Tensor = np.asarray(values).view(Tensor)
    return tensor


def _numpy_names(dim: Any, keepdim: bool, more: dict[str, Any]) -> dict[str, Any]:
    names = dict(more)
    names.setdefault("axis", dim)
    names["keepdims"] = names.get("keepdims", False) or keepdim
    return names


def is_torch(value: Any) -> bool:
    """Whether a value is a tensor of the real torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def like(given: Any, values: npt.NDArray[Any]) -> Any:
    """An answer to what was given: a tensor of torch to one of torch, else a :class:`Tensor`."""
    if is_torch(given):
        return sys.modules["torch"].from_numpy(values).to(given.device)
    return values.view(Tensor)
