"""Models and tokenizers by open_clip's names."""

from __future__ import annotations

import os
from typing import Any

from xmore.model import Model
from xmore.open_clip.model import CLIP, Preprocess, Tokenizer

#: What open_clip calls number formats.
_PRECISIONS = {
    "fp32": "f32",
    "fp16": "f16",
    "pure_fp16": "f16",
    "bf16": "bf16",
    "pure_bf16": "bf16",
    "int8": "int8",
}

#: The model that was created last under each name, for its tokenizer: an architecture's name alone does not say whose files to read.
_created: dict[str, Model] = {}


def create_model(
    model_name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: str = "fp32",
    device: Any = "cpu",
    *,
    image_resize_mode: str | None = None,
    threads: int | None = None,
) -> CLIP:
    """Opens a model.

    Args:
        model_name: an architecture of open_clip's, ``hf-hub:org/name``, ``local-dir:PATH``, or any name of :class:`xmore.Model`.
        pretrained: which weights: a tag of open_clip's, or the path of a checkpoint file.
        precision: ``fp32``, ``bf16``, ``int8``; on GPUs ``fp32``, ``fp16`` and ``bf16``.
        device: where it computes, as in :class:`xmore.Model`.
        image_resize_mode: how images become squares: ``shortest``, ``longest``, ``squash``.
        threads: threads that compute.

    Raises:
        ValueError: a name, precision or device that there is not.
        FileNotFoundError: files that are not here and cannot be fetched.
    """
    if precision not in _PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(_PRECISIONS)}, found {precision}")
    weights = None if pretrained is None else os.fspath(pretrained)
    if weights is not None and os.path.exists(weights):
        name, weights = os.path.abspath(weights), None
    else:
        name = model_name
    model = Model(
        name,
        _PRECISIONS[precision],  # type: ignore[arg-type]
        threads,
        pretrained=weights,
        device=str(device),
        resize_mode=image_resize_mode,
    )
    _created[model_name] = model
    return CLIP(model)


def create_model_and_transforms(
    model_name: str, pretrained: str | os.PathLike[str] | None = None, *arguments: Any, **options: Any
) -> tuple[CLIP, Preprocess, Preprocess]:
    """A model and its preprocessing twice, where open_clip has those for training and for inference.

    Arguments and errors are those of :func:`create_model`.
    """
    model = create_model(model_name, pretrained, *arguments, **options)
    preprocess = Preprocess(model.model)
    return model, preprocess, preprocess


def create_model_from_pretrained(
    model_name: str, pretrained: str | os.PathLike[str] | None = None, *arguments: Any, **options: Any
) -> tuple[CLIP, Preprocess]:
    """A model and its preprocessing; arguments and errors are those of :func:`create_model`."""
    model, preprocess, _ = create_model_and_transforms(model_name, pretrained, *arguments, **options)
    return model, preprocess


def get_tokenizer(model_name: str = "", context_length: int | None = None) -> Tokenizer:
    """The tokenizer of a model: the one that was created last under this name, else one that is opened for it.

    Raises:
        ValueError: there is no model of that name, or one of several must be chosen: create it first.
    """
    model = _created.get(model_name) or Model(model_name)
    if context_length not in (None, model.context_length):
        raise ValueError(f"context_length: expected {model.context_length}, found {context_length}")
    return Tokenizer(model)
