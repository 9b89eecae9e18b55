"""Errors and warnings that have no class of Python's own.

What is one of Python's kinds is raised as that: a file that is not there as ``FileNotFoundError``, an argument that makes no sense as
``ValueError``, one of the wrong type as ``TypeError``.
"""

from __future__ import annotations

from collections.abc import Sequence


class XmoreError(Exception):
    """What xmore could not do, such as reading a damaged file; the base of its own errors."""


class ModelMismatch(XmoreError, ValueError):
    """Embeddings are those of another model than the one in use: their numbers mean nothing to it."""


class ImageError(XmoreError, ValueError):
    """An image cannot be decoded."""


class XmoreWarning(UserWarning):
    """Something that is worth knowing of a result; the base of its own warnings."""


class SkippedImages(XmoreWarning):
    """Images that could not be read and have no embedding or answer, or one of NaN.

    Attributes:
        skipped: for each of them its index among the images that were given, and why.
        total: how many images were given.
    """

    #: Reasons that the message has.
    SHOWN = 3

    def __init__(self, skipped: Sequence[tuple[int, str]], total: int) -> None:
        self.skipped = list(skipped)
        self.total = total
        shown = "; ".join(f"images[{index}]: {reason}" for index, reason in self.skipped[: self.SHOWN])
        more = len(self.skipped) - self.SHOWN
        shown += f"; and {more} more" if more > 0 else ""
        super().__init__(f"{len(self.skipped)} of {total} images could not be read: {shown}")
