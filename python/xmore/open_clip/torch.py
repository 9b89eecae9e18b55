"""The few names of torch that code around open_clip says besides: ``from xmore.open_clip import torch``.

Nothing here computes gradients or in mixed precision, so their contexts do nothing. This is not torch, and has no more of it than this.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from xmore.open_clip.tensor import Tensor


def no_grad() -> AbstractContextManager[None]:
    """A context that does nothing."""
    return nullcontext()


def inference_mode(mode: bool = True) -> AbstractContextManager[None]:
    """A context that does nothing."""
    return nullcontext()


def autocast(*arguments: Any, **options: Any) -> AbstractContextManager[None]:
    """A context that does nothing: the model's precision is chosen when it is created."""
    return nullcontext()


def stack(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Arrays of the same shape along a new axis."""
    return np.stack([np.asarray(each) for each in tensors], axis=dim).view(Tensor)


def cat(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Arrays one after the other along an axis."""
    return np.concatenate([np.asarray(each) for each in tensors], axis=dim).view(Tensor)


def softmax(values: Any, dim: int) -> Tensor:
    """The softmax along ``dim``."""
    return np.asarray(values).view(Tensor).softmax(dim)
