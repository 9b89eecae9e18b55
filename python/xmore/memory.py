"""Memories: image-caption pairs with their embeddings, on disk."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from xmore import _native, _optional
from xmore._errors import XmoreError, XmoreWarning
from xmore._types import By, Float16
from xmore.model import Model, opened

if TYPE_CHECKING:
    from xmore._types import Images

#: Skipped things that a warning names.
_SHOWN = 3
#: How many rows are made Python objects at a time.
_ROWS = 65_536


class Hit(NamedTuple):
    """A pair that a search found."""

    #: Row of the pair in the memory.
    id: int
    #: Cosine of the query and the pair's image, or its caption.
    similarity: float
    #: The pair's caption.
    caption: str
    #: The pair's image, as the memory names it.
    image_path: str


class Finding(NamedTuple):
    """Something of a memory that is not as its manifest says."""

    #: The file.
    path: str
    #: What was expected and what was found.
    problem: str
    #: Whether ``xmore memory repair`` can make it again from the rest.
    derived: bool


class Embeddings:
    """Stored embeddings, float16 ``[rows, dim]``: the mapped files themselves, read-only.

    A memory of many pairs has several files, and numpy has no array over several mappings. :attr:`parts` has an array for each, without a
    copy; a row, a slice or ``numpy.asarray`` of the whole is a view where it lies within one part, else a copy.
    """

    def __init__(self, parts: Sequence[Float16], dim: int) -> None:
        #: The arrays, in the order of the pairs' ids.
        self.parts: list[Float16] = list(parts)
        self._starts = np.cumsum([0, *(len(part) for part in self.parts)])
        self._dim = dim

    @property
    def shape(self) -> tuple[int, int]:
        """``(rows, dim)``."""
        return int(self._starts[-1]), self._dim

    @property
    def dtype(self) -> np.dtype[np.float16]:
        """float16."""
        return np.dtype(np.float16)

    def __len__(self) -> int:
        return self.shape[0]

    @overload
    def __getitem__(self, index: int) -> Float16: ...
    @overload
    def __getitem__(self, index: slice) -> Float16: ...
    def __getitem__(self, index: int | slice) -> Float16:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return self._gathered(range(start, stop, step))
            return self._joined(start, max(start, stop))
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        found: Float16 = self.parts[part][row - int(self._starts[part])]
        return found

    def __iter__(self) -> Iterator[Float16]:
        for part in self.parts:
            yield from part

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False and len(self.parts) > 1:
            raise ValueError(f"{len(self.parts)} parts make one array only by a copy; see `parts`")
        whole = self._joined(0, len(self))
        if dtype is not None and np.dtype(dtype) != whole.dtype:
            return whole.astype(dtype)
        return whole.copy() if copy else whole

    def _gathered(self, rows: Iterable[int]) -> Float16:
        gathered = [self[row] for row in rows]
        return np.stack(gathered) if gathered else np.empty((0, self._dim), np.float16)

    def _joined(self, start: int, stop: int) -> Float16:
        pieces = []
        for part, first in zip(self.parts, self._starts, strict=False):
            piece = part[max(0, start - int(first)) : max(0, stop - int(first))]
            if len(piece):
                pieces.append(piece)
        if not pieces:
            return np.empty((0, self._dim), np.float16)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def __repr__(self) -> str:
        rows, dim = self.shape
        return f"<xmore.Embeddings: float16 [{rows}, {dim}] in {len(self.parts)} parts>"


class Strings(Sequence[str]):
    """A string for each pair, read from the mapped file when it is asked for."""

    def __init__(self, get: Callable[[int], str], count: int) -> None:
        self._get = get
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._get(row) for row in range(*index.indices(len(self)))]
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        return self._get(row)

    def __iter__(self) -> Iterator[str]:
        return map(self._get, range(len(self)))


class Memory:
    """Image-caption pairs with their embeddings: a folder, or a remote index.

    Opening maps the files and reads nothing else. It may be used from several threads, and pickles by where it is.

    Args:
        path: the folder of a memory, or a remote index's URL (``milvus://``, ``postgres://``, ``knn+http://``), which a
            :class:`Classifier` can use and nothing else.
        model: the model that embeds queries; the one that the memory was built with, opened when it is needed, if ``None``.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is none of a memory.
        XmoreError: it is damaged.
    """

    def __init__(
        self, path: str | os.PathLike[str], model: Model | str | os.PathLike[str] | None = None
    ) -> None:
        location = os.fspath(path)
        self._native = _native.Memory(location)
        self._model = None if model is None else opened(model)
        self._opening = threading.Lock()
        #: The folder, or the URL without a password.
        self.location: str = self._native.location
        self._given = os.path.abspath(location) if self._native.is_local else location

    @classmethod
    def build(
        cls,
        sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        path: str | os.PathLike[str],
        model: Model | str | os.PathLike[str] = "lite",
        *,
        progress: bool = True,
        overwrite: bool = False,
        input_format: str = "auto",
        image_root: str | os.PathLike[str] | None = None,
        image_column: str | None = None,
        caption_column: str | None = None,
        include_hidden: bool = False,
        max_skipped: str = "10%",
    ) -> Memory:
        """Builds a memory, and opens it. The bytes are those of ``xmore memory build``.

        A build that was interrupted goes on where it stopped; one that is there grows by what its sources have got since.

        Args:
            sources: a folder of images with captions beside them, a table, parquet, webdataset tars, COCO's captions, clip-retrieval's
                embeddings, or several of these; patterns are expanded.
            path: the memory's folder.
            model: a :class:`Model`, or a model's name.
            progress: whether to show progress, by tqdm where it is installed.
            overwrite: whether to build anew and replace the memory that is there.
            input_format: what the sources are taken as; what each looks like with ``"auto"``.
            image_root: the folder that image paths in tables, parquet files and COCO captions are relative to.
            image_column: the column of tables and parquet files that names the images.
            caption_column: the one with the captions.
            include_hidden: whether hidden files are taken, too.
            max_skipped: how many images may fail: a number, or a percentage. What is left out is told as a warning.

        Raises:
            XmoreError: more failed than is allowed.
        """
        encoder = opened(model)
        report = _native.build_memory(
            encoder,
            _paths(sources),
            os.fspath(path),
            "overwrite" if overwrite else "create",
            input_format,
            image_root,
            image_column,
            caption_column,
            include_hidden,
            max_skipped,
            progress,
        )
        _warn(report, stacklevel=3)
        return cls(path, encoder)

    def append(
        self,
        sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        progress: bool = True,
        input_format: str = "auto",
        image_root: str | os.PathLike[str] | None = None,
        image_column: str | None = None,
        caption_column: str | None = None,
        include_hidden: bool = False,
        max_skipped: str = "10%",
    ) -> int:
        """Adds the pairs of sources that the memory does not have; arguments are those of :meth:`build`.

        Arrays and classifiers that were made before keep the pairs that there were.

        Returns:
            How many pairs were added.
        """
        report = _native.build_memory(
            self.model,
            _paths(sources),
            self._given,
            "append",
            input_format,
            image_root,
            image_column,
            caption_column,
            include_hidden,
            max_skipped,
            progress,
        )
        self._native = _native.Memory(self._given)
        _warn(report, stacklevel=3)
        return int(report["added"])

    def verify(self, *, progress: bool = False) -> list[Finding]:
        """Reads all of the memory and compares it with its checksums: what is wrong, nothing if all is as it should be."""
        found = _native.verify_memory(self._given, progress)
        return [Finding(os.fspath(path), problem, derived) for path, problem, derived in found]

    @property
    def model(self) -> Model:
        """The model that embeds queries: the one that was given, else the one that the memory was built with.

        Raises:
            FileNotFoundError: it is not on this machine and cannot be fetched.
            ModelMismatch: what has its name now is another model than the memory's.
        """
        with self._opening:
            if self._model is None:
                identity = self._native.model_identity
                if identity is None:
                    raise XmoreError(
                        f"{self.location} does not say which model its embeddings are by: give one"
                    )
                name, precision, _ = identity
                orientation = self._native.orientation or "exif"
                self._model = Model(name, precision or "f32", orientation=orientation)  # type: ignore[arg-type]
            return self._model

    @property
    def model_name(self) -> str | None:
        """The name of the model that it was built with, as far as is known."""
        identity = self._native.model_identity
        return None if identity is None else identity[0]

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._native.dim

    def search(
        self,
        queries: Images | str | Iterable[str] | npt.NDArray[np.floating[Any]],
        k: int = 20,
        by: By = "image",
        caption_filter: str | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """The pairs most similar to each query, exactly.

        What a query is follows from its type: a ``str`` is a text; an array of floats an embedding, or one in each row; anything else is an
        image as :mod:`xmore` describes it, where the path of one is a :class:`os.PathLike`, such as ``pathlib.Path``.

        Args:
            queries: one query or several of one kind.
            k: pairs for each query.
            by: what is compared with it: the pairs' images (``"image"``) or their captions (``"caption"``).
            caption_filter: a regular expression; only pairs whose caption matches are found.

        Returns:
            The pairs, best first: a list of :class:`Hit` for one query, for several a list of those.
        """
        rows = self._embedded(queries)
        found = self._native.search_embeddings(np.atleast_2d(rows), k, by, caption_filter, self._model)
        hits = [
            [
                Hit(row, similarity, self._native.caption(row), self._native.image_path(row))
                for row, similarity in zip(ids.tolist(), similarities.tolist(), strict=True)
            ]
            for ids, similarities in found
        ]
        return hits[0] if rows.ndim == 1 else hits

    def _embedded(self, queries: Any) -> npt.NDArray[np.floating[Any]]:
        if isinstance(queries, str):
            return self.model.encode_text(queries)
        dtype = getattr(queries, "dtype", None)
        if isinstance(queries, np.ndarray) and dtype is not None and dtype.kind == "f":
            if queries.ndim not in (1, 2):
                raise ValueError(
                    f"queries: expected embeddings [n, dim] or [dim], found an array of shape {queries.shape}"
                )
            return queries
        if (
            isinstance(queries, (list, tuple))
            and queries
            and all(isinstance(query, str) for query in queries)
        ):
            return self.model.encode_text(queries)
        return self.model.encode_image(queries)

    @property
    def image_embeddings(self) -> Embeddings:
        """The embeddings of the pairs' images: the mapped files, without a copy."""
        return self._embeddings("image")

    @property
    def caption_embeddings(self) -> Embeddings:
        """The same of their captions."""
        return self._embeddings("caption")

    def _embeddings(self, by: By) -> Embeddings:
        return Embeddings([np.asarray(rows) for rows in self._native.stored_rows(by)], self.dim)

    @property
    def captions(self) -> Strings:
        """The pairs' captions."""
        return Strings(self._native.caption, len(self))

    @property
    def image_paths(self) -> Strings:
        """The pairs' images, as they were recorded: a path, ``FILE.tar#MEMBER``, or ``FILE.parquet#ROW``."""
        return Strings(self._native.image_path, len(self))

    def __len__(self) -> int:
        count = self._native.count
        if count is None:
            raise TypeError(f"{self.location} does not say how many pairs it has")
        return count

    def to_arrow(self, *, embeddings: bool = True) -> Any:
        """A ``pyarrow.Table`` of all pairs: ``image_path``, ``caption``, and their embeddings as float16 lists, which are not copied.

        Raises:
            ImportError: pyarrow is not installed.
        """
        pyarrow = _optional.load("pyarrow", "arrow", "to_arrow")
        columns = {}
        for name, strings in (("image_path", self.image_paths), ("caption", self.captions)):
            starts = range(0, len(strings), _ROWS)
            chunks = [pyarrow.array(strings[start : start + _ROWS], pyarrow.string()) for start in starts]
            columns[name] = pyarrow.chunked_array(chunks, pyarrow.string())
        if embeddings:
            kind = pyarrow.list_(pyarrow.float16(), self.dim)
            for name, stored in (
                ("image_embedding", self.image_embeddings),
                ("caption_embedding", self.caption_embeddings),
            ):
                parts = [
                    pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(part.reshape(-1)), self.dim)
                    for part in stored.parts
                ]
                columns[name] = pyarrow.chunked_array(parts, kind)
        return pyarrow.table(columns)

    def __repr__(self) -> str:
        count = self._native.count
        pairs = "" if count is None else f", {count} pairs"
        return f"xmore.Memory({self.location!r}{pairs}, model={self.model_name!r})"

    def __reduce__(self) -> tuple[Callable[..., Memory], tuple[Any, ...]]:
        return type(self), (self._given, self._model)


def opened_memory(memory: Memory | str | os.PathLike[str] | None) -> Memory | None:
    """A memory that is given, or the one in a folder; ``None`` for none."""
    return memory if memory is None or isinstance(memory, Memory) else Memory(memory)


def _paths(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    if isinstance(sources, (str, os.PathLike)):
        return [os.fspath(sources)]
    return [os.fspath(source) for source in sources]


def _warn(report: dict[str, Any], stacklevel: int) -> None:
    for note in report["notes"]:
        warnings.warn(note, XmoreWarning, stacklevel=stacklevel)
    if report["failed"]:
        shown = "; ".join(report["skipped"][:_SHOWN])
        message = f"{report['failed']} of {report['things']} could not be read and were left out: {shown}"
        warnings.warn(message, XmoreWarning, stacklevel=stacklevel)
    if report["truncated"]:
        message = f"{report['truncated']} captions were longer than the model reads, and cut"
        warnings.warn(message, XmoreWarning, stacklevel=stacklevel)


__all__ = ["Embeddings", "Finding", "Hit", "Memory", "Strings"]
