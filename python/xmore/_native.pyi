"""The native module; the classes that users see are in the package's Python files."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

_Path = str | os.PathLike[str]

__version__: str

class Answer:
    @property
    def label(self) -> str | None: ...
    @property
    def score(self) -> float | None: ...
    def scores(self) -> npt.NDArray[np.float64]: ...
    def json(self) -> str: ...

class Model:
    def __new__(
        cls,
        name: str,
        pretrained: str | None,
        precision: str,
        threads: int | None,
        local_files_only: bool,
        device: str,
        orientation: str,
        resize_mode: str | None,
        progress: bool,
    ) -> Self: ...
    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def logit_scale(self) -> float: ...
    @property
    def logit_bias(self) -> float: ...
    @property
    def trained_with_sigmoid(self) -> bool: ...
    @property
    def precision(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def image_size(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    @property
    def orientation(self) -> str: ...
    @property
    def tower_names(self) -> list[str]: ...
    def encode_image(
        self, images: Any, batch_size: int, on_error: str, progress: bool
    ) -> tuple[npt.NDArray[np.float32], list[tuple[int, str]]]: ...
    def encode_text(
        self, texts: str | Iterable[str], template: str | None, progress: bool
    ) -> tuple[npt.NDArray[np.float32], int]: ...
    def encode_pixels(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...
    def encode_tokens(self, tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]: ...
    def preprocess(self, image: Any) -> npt.NDArray[np.float32]: ...
    def tokenize(self, texts: str | Iterable[str]) -> list[list[int]]: ...

class Classifier:
    def __new__(
        cls,
        model: Model,
        labels: Any,
        memory: Memory | None,
        method: str,
        templates: Iterable[str] | None,
        k: int,
        neighbors: int,
        caption_filter: str | None,
        scores: str,
        top: int,
        min_score: float | None,
        min_similarity: float | None,
    ) -> Self: ...
    @property
    def labels(self) -> list[str]: ...
    @property
    def method(self) -> str: ...
    @property
    def templates(self) -> list[str]: ...
    @property
    def warnings(self) -> list[str]: ...
    def label_fields(self) -> list[dict[str, Any]]: ...
    def classify(self, image: Any) -> Answer: ...
    def classify_all(
        self, images: Any, batch_size: int, on_error: str, progress: bool
    ) -> tuple[list[Answer | None], list[tuple[int, str]]]: ...

class StoredRows:
    @property
    def __array_interface__(self) -> Mapping[str, Any]: ...

class Memory:
    def __new__(cls, location: str) -> Memory: ...
    @property
    def location(self) -> str: ...
    @property
    def is_local(self) -> bool: ...
    @property
    def count(self) -> int | None: ...
    @property
    def model_identity(self) -> tuple[str, str | None, str] | None: ...
    @property
    def orientation(self) -> str | None: ...
    @property
    def dim(self) -> int: ...
    def caption(self, id: int) -> str: ...
    def image_path(self, id: int) -> str: ...
    def stored_rows(self, by: str) -> list[StoredRows]: ...
    def search_embeddings(
        self,
        queries: npt.NDArray[np.floating[Any]],
        k: int,
        by: str,
        caption_filter: str | None,
        model: Model | None,
    ) -> list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]]: ...

def build_memory(
    model: Model,
    sources: Sequence[_Path],
    path: _Path,
    mode: str,
    input_format: str,
    image_root: _Path | None,
    image_column: str | None,
    caption_column: str | None,
    include_hidden: bool,
    max_skipped: str,
    progress: bool,
) -> dict[str, Any]: ...
def verify_memory(path: _Path, progress: bool) -> list[tuple[_Path, str, bool]]: ...
def evaluate(
    model: Model,
    folder: _Path,
    memory: Memory | None,
    methods: str | Iterable[str] | None,
    templates: str | Iterable[str] | None,
    k: int,
    neighbors: int,
    dataset_format: str,
    split: str | None,
    class_names: _Path | None,
    seed: int,
    bootstrap: int,
    cache: bool,
    progress: bool,
) -> str: ...
def run_command_line(arguments: Sequence[str]) -> int: ...
