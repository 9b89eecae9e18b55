"""Models: images and texts to embeddings."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmore import _encode, _native
from xmore._errors import ModelMismatch, SkippedImages, XmoreWarning
from xmore._types import Float32, Image, Images, OnError, Precision

if TYPE_CHECKING:
    from typing_extensions import Self

_LOCAL = "local-dir:"


class Model(_native.Model):
    """A dual encoder: images and texts to unit vectors of one space, whose dot products are cosines.

    Opening it reads configuration and headers only; a tower is loaded when it is first used. It may be used from several threads, and after a
    fork. It pickles by what it was opened from.

    Args:
        name: ``"lite"``; a name of open_clip's such as ``"ViT-B-16,openai"``; ``"hf-hub:org/name"``; or the path of a model folder or a
            checkpoint file.
        precision: number format of the linear layers; processors compute in ``f32``, ``int8`` and ``bf16``. ``auto`` is ``bf16`` where the
            processor is faster in it and embeddings are near those in ``f32`` (a cosine of 0.9995 or more), else ``f32``; the attribute
            ``precision`` says which. A pickle has what was taken.
        threads: threads that compute; all cores, or ``XMORE_THREADS``, if ``None``.
        local_files_only: whether to open only what is on this machine; else what is missing is fetched.
        pretrained: the weights of an architecture, if they are not part of the name.
        device: ``"cpu"``, ``"auto"``, ``"cuda"`` or ``"cuda:N"``.
        orientation: ``"exif"`` turns images upright as their metadata says, ``"stored"`` takes them as their pixels lie.
        resize_mode: how images become squares, if not as the model's configuration says: ``"shortest"``, ``"longest"`` or ``"squash"``.
        progress: whether to show downloads, by tqdm where it is installed.

    Raises:
        ValueError: there is no model of that name, or it cannot be opened as asked.
        FileNotFoundError: it is not on this machine and may not, or cannot, be fetched.
    """

    def __new__(
        cls,
        name: str | os.PathLike[str] = "lite",
        precision: Precision = "f32",
        threads: int | None = None,
        local_files_only: bool = False,
        *,
        pretrained: str | None = None,
        device: str = "cpu",
        orientation: str = "exif",
        resize_mode: str | None = None,
        progress: bool = True,
    ) -> Self:
        asked = name if isinstance(name, str) else _LOCAL + os.fspath(name)
        self = super().__new__(
            cls,
            asked,
            pretrained,
            precision,
            threads,
            local_files_only,
            device,
            orientation,
            resize_mode,
            progress,
        )
        self._arguments = {
            "name": _absolute(asked),
            "precision": self.precision,
            "threads": threads,
            "local_files_only": local_files_only,
            "pretrained": pretrained,
            "device": device,
            "orientation": orientation,
            "resize_mode": resize_mode,
            "progress": False,
        }
        return self

    _arguments: dict[str, Any]

    def encode_image(  # type: ignore[override]
        self,
        images: Images,
        batch_size: int = 64,
        on_error: OnError = "raise",
        *,
        progress: bool = False,
    ) -> Float32:
        """Embeds images.

        Reading, decoding and encoding overlap. A generator is read as it is needed, so that only a few batches of pixels are in memory. On a
        processor an image's embedding is the same alone and in any batch.

        Args:
            images: one image or several; see :mod:`xmore`.
            batch_size: images that are encoded together, at most.
            on_error: what becomes of an image that cannot be read: ``"raise"`` its error, a row of ``"nan"``, or ``"skip"`` it, so that it
                has no row. With the last two a :class:`SkippedImages` warning has the indices and the reasons. An argument that is no image is
                always an error.
            progress: whether to show progress, by tqdm where it is installed.

        Returns:
            float32 unit rows ``[n, dim]``; ``[dim]`` for one image that is not in a list.
        """
        rows, skipped = super().encode_image(images, batch_size, on_error, progress)
        if skipped:
            total = len(rows) + len(skipped) if on_error == "skip" else len(np.atleast_2d(rows))
            warnings.warn(SkippedImages(skipped, total), stacklevel=2)
        return rows

    def encode_text(  # type: ignore[override]
        self, texts: str | Iterable[str], template: str | None = None, *, progress: bool = False
    ) -> Float32:
        """Embeds texts; one that is longer than the model reads is cut, and a warning says so.

        Args:
            texts: one text or several.
            template: a prompt such as ``"a photo of a {}."``, into which each text is put.
            progress: whether to show progress, by tqdm where it is installed.

        Returns:
            float32 unit rows ``[n, dim]``; ``[dim]`` for one text that is not in a list.
        """
        rows, truncated = super().encode_text(texts, template, progress)
        if truncated:
            were = "text was" if truncated == 1 else "texts were"
            message = f"{truncated} {were} longer than the {self.context_length} tokens that the model reads, and cut"
            warnings.warn(message, XmoreWarning, stacklevel=2)
        return rows

    def preprocess(self, image: Image) -> Float32:
        """An image as the image tower takes it: resized, cropped, normalized, float32 ``[3, size, size]``.

        Towers that take pictures of any aspect (SigLIP 2 NaFlex) get ``[patches, values of a patch]``.
        """
        return super().preprocess(image)

    def tokenize(self, texts: str | Iterable[str]) -> npt.NDArray[np.int64]:  # type: ignore[override]
        """The tokens of texts, int64 ``[n, context_length]``, start and end included; behind a text's end there are zeros.

        One text that is not in a list gives ``[context_length]``.
        """
        tokens = super().tokenize(texts)
        rows = np.zeros((len(tokens), self.context_length), dtype=np.int64)
        for row, ids in zip(rows, tokens, strict=True):
            row[: len(ids)] = ids
        return rows[0] if isinstance(texts, str) else rows

    def encode(
        self,
        sentences: str | Image | Sequence[str | Image],
        batch_size: int = 64,
        show_progress_bar: bool | None = None,
        *,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = True,
    ) -> Any:
        """Embeds texts and images in one call, as sentence-transformers' models do: a ``str`` is a text, anything else an image.

        Args:
            sentences: a text, an image, or a list of both.
            batch_size: images that are encoded together, at most.
            show_progress_bar: whether to show progress, by tqdm where it is installed.
            convert_to_numpy: answers are numpy arrays unless ``convert_to_tensor`` is given.
            convert_to_tensor: whether to answer with a tensor of torch, which must be installed.
            normalize_embeddings: embeddings are unit vectors whether it is given or not.

        Returns:
            float32 unit rows ``[n, dim]`` in the order given; ``[dim]`` for one text or image.
        """
        return _encode.encode(self, sentences, batch_size, bool(show_progress_bar), convert_to_tensor)

    def encode_pixels(self, pixels: Float32) -> Float32:
        """Embeds images as :meth:`preprocess` gives them, float32 ``[n, 3, size, size]``: float32 unit rows ``[n, dim]``."""
        return super().encode_pixels(np.asarray(pixels, dtype=np.float32))

    def encode_tokens(self, tokens: npt.NDArray[np.int64] | Sequence[Sequence[int]]) -> Float32:
        """Embeds texts by their tokens, as :meth:`tokenize` gives them: float32 unit rows ``[n, dim]``."""
        rows = [np.asarray(row, dtype=np.int64) for row in tokens]
        # A tokenizer that pads by itself does so because the text tower computes the padding, too.
        if len(super().tokenize("")[0]) < self.context_length:
            rows = [row[: np.flatnonzero(row)[-1] + 1] if row.any() else row[:1] for row in rows]
        return super().encode_tokens([row.tolist() for row in rows])

    def __repr__(self) -> str:
        return f"xmore.Model({self.name!r}, dim={self.dim}, precision={self.precision!r}, device={self.device!r})"

    def __reduce__(self) -> tuple[Callable[..., Model], tuple[Any, ...]]:
        return _reopen, (type(self), self._arguments, self.fingerprint)


def opened(model: Model | str | os.PathLike[str], precision: Precision = "f32", **options: Any) -> Model:
    """A model that is given, or that of a name."""
    return model if isinstance(model, Model) else Model(model, precision, **options)


def _absolute(name: str) -> str:
    """The same name for a process in another folder."""
    path = name.removeprefix(_LOCAL)
    if name.startswith(_LOCAL) or (os.sep in name and os.path.exists(name)):
        return _LOCAL + os.path.abspath(path)
    return name


def _reopen(cls: type[Model], arguments: dict[str, Any], fingerprint: str) -> Model:
    model = cls(**arguments)
    if model.fingerprint != fingerprint:
        message = f"model {model.name} has the fingerprint {model.fingerprint} here, expected {fingerprint}"
        raise ModelMismatch(message)
    return model
