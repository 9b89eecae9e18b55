"""A loader for CLIP_benchmark's registry of models, which evaluates with torch.

>>> from xmore import clip_benchmark
>>> clip_benchmark.register()

From then on ``model_type="xmore"`` names this loader in CLIP_benchmark's functions; its command line reads the types when it starts, so call
``register`` before ``clip_benchmark.cli.main``.
"""

from __future__ import annotations

import os
from typing import Any

from xmore import _optional
from xmore.open_clip import create_model_and_transforms, get_tokenizer


def load(
    model_name: str = "lite",
    pretrained: str | os.PathLike[str] | None = None,
    cache_dir: str | None = None,
    device: Any = "cpu",
) -> tuple[Any, Any, Any]:
    """Model, transform and tokenizer over torch's tensors, as CLIP_benchmark's loaders give them.

    Args:
        model_name, pretrained: as in :func:`xmore.open_clip.create_model`.
        cache_dir: must be ``None``: files lie in the hub's usual cache.
        device: where torch's tensors lie; the model computes on the processor.

    Raises:
        ValueError: ``cache_dir`` is given.
        ImportError: torch is not installed.
    """
    if cache_dir is not None:
        raise ValueError(f"cache_dir: expected none, for the hub's usual cache, found {cache_dir}")
    torch = _optional.load("torch", "torch", "xmore.clip_benchmark")
    model, _, preprocess = create_model_and_transforms(model_name, pretrained or None)
    tokenizer = get_tokenizer(model_name)

    def transform(image: Any) -> Any:
        return torch.from_numpy(preprocess(image).numpy())

    def tokenize(texts: Any) -> Any:
        return torch.from_numpy(tokenizer(texts).numpy())

    return model, transform, tokenize


def register(name: str = "xmore") -> None:
    """Puts :func:`load` into CLIP_benchmark's registry under ``name``.

    Raises:
        ImportError: CLIP_benchmark is not installed.
    """
    models = _optional.load("clip_benchmark.models", "clip-benchmark", "xmore.clip_benchmark.register")
    models.TYPE2FUNC[name] = load
    if name not in models.MODEL_TYPES:
        models.MODEL_TYPES.append(name)
