"""Evaluation on labeled images: every method side by side, every image counted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from xmore import _html, _native, _optional
from xmore.memory import Memory, opened_memory
from xmore.model import Model, opened

#: Methods that the others are compared with.
_REFERENCES = ("zero-shot", "xmore")


class Evaluation:
    """The results on one dataset: a table with a row for each method. In a notebook it shows itself."""

    def __init__(self, report: dict[str, Any], model: str) -> None:
        #: All that was measured, as ``xmore eval`` has it.
        self.report = report
        #: The model's name.
        self.model = model

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return str(self.report["dataset"])

    @property
    def images(self) -> int:
        """All images; those that could not be read count as wrong."""
        return int(self.report["images"])

    @property
    def unreadable(self) -> int:
        """How many of them could not be read."""
        return int(self.report["unreadable"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A dict for each method.

        ``acc1``, ``acc5`` and ``mean_per_class_recall`` are shares of all images; ``ece``, ``nll``, ``brier`` and ``aurc`` say how well scores
        are calibrated. ``zero-shot_difference`` is the difference of ``acc1`` to the method zero-shot, ``_low`` and ``_high`` its 95 % bootstrap
        interval, ``_p`` McNemar's exact p; those of ``xmore`` follow.
        """
        return [self._row(method) for method in self.report["methods"]]

    def _row(self, method: dict[str, Any]) -> dict[str, Any]:
        orders, calibration = method["orders"], method["calibration"]
        row = {
            "method": method["method"],
            # Of a method that depends on the images' order, the mean over orders.
            "acc1": method["acc1"] if orders is None else orders["acc1_mean"],
            "acc5": method["acc5"],
            "mean_per_class_recall": method["mean_per_class_recall"],
            **{name: calibration[name] for name in ("ece", "nll", "brier", "aurc")},
        }
        comparisons = {each["with"]: each for each in method["comparisons"]}
        measured = {each["method"] for each in self.report["methods"]}
        for reference in _REFERENCES:
            if reference not in measured:
                continue
            compared = comparisons.get(reference)
            low, high = (None, None) if compared is None else compared["interval"]
            row[f"{reference}_difference"] = None if compared is None else compared["difference"]
            row[f"{reference}_low"], row[f"{reference}_high"] = low, high
            row[f"{reference}_p"] = None if compared is None else compared["p_value"]
        return row

    def __getitem__(self, method: str) -> dict[str, Any]:
        """The row of a method.

        Raises:
            KeyError: it was not measured.
        """
        for row in self.rows:
            if row["method"] == method:
                return row
        raise KeyError(method)

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame``.

        Raises:
            ImportError: pandas is not installed.
        """
        return _optional.load("pandas", "pandas", "to_pandas").DataFrame(self.rows)

    def to_html(self) -> str:
        """The table as HTML."""
        header, rows = self._table()
        return f"<div>{_html.table([], [[self._heading()]])}{_html.table(header, rows)}</div>"

    def _repr_html_(self) -> str:
        return self.to_html()

    def _heading(self) -> str:
        unreadable = f", {self.unreadable} of them unreadable and counted as wrong" if self.unreadable else ""
        return f"{self.dataset}: {self.images} images{unreadable}, {self.report['classes']} classes, {self.model}"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = self.rows
        references = [name for name in _REFERENCES if f"{name}_difference" in rows[0]]
        header = ["method", "top-1 %", "top-5 %", "per class %", "ECE %"]
        for name in references:
            header += [f"− {name}", "95 %", "p"]
        shown = []
        for row in rows:
            cells = [
                row["method"],
                *(_percent(row[key]) for key in ("acc1", "acc5", "mean_per_class_recall", "ece")),
            ]
            for name in references:
                difference = row[f"{name}_difference"]
                if difference is None:
                    cells += ["–", "", ""]
                    continue
                interval = f"{100 * row[f'{name}_low']:+.2f} … {100 * row[f'{name}_high']:+.2f}"
                cells += [f"{100 * difference:+.2f}", interval, f"{row[f'{name}_p']:.4f}"]
            shown.append(cells)
        return header, shown

    def __str__(self) -> str:
        header, rows = self._table()
        widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in [header, *rows]
        ]
        return "\n".join([self._heading(), *(line.rstrip() for line in lines)])

    def __repr__(self) -> str:
        methods = ", ".join(f"{row['method']} {_percent(row['acc1'])} %" for row in self.rows)
        return f"<xmore.Evaluation of {self.dataset}, {self.images} images: {methods}>"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


def evaluate(
    folder: str | os.PathLike[str],
    memory: Memory | str | os.PathLike[str] | None = None,
    methods: str | Iterable[str] | None = None,
    *,
    model: Model | str | os.PathLike[str] | None = None,
    templates: str | Iterable[str] | None = None,
    k: int = 16,
    neighbors: int = 128,
    dataset_format: str = "auto",
    split: str | None = None,
    class_names: str | os.PathLike[str] | None = None,
    seed: int = 0,
    bootstrap: int = 10_000,
    cache: bool = True,
    progress: bool = False,
) -> Evaluation:
    """Measures methods on labeled images; the figures are those of ``xmore eval``.

    Args:
        folder: a folder with a sub-folder for each class, a table with columns for image paths and labels, tars with ``.cls`` members, or
            another layout that ``xmore eval`` reads.
        memory: a :class:`Memory`, or its folder or URL.
        methods: which methods; those that a :class:`Classifier` has and that are possible if ``None``.
        model: a :class:`Model`, or a model's name; the memory's own, or ``"lite"`` without a memory, if ``None``.
        templates: prompts; see :class:`Classifier`.
        k: captions that are kept for each image.
        neighbors: nearest pairs among which they are chosen.
        dataset_format: the layout, if it is not to be found out.
        split: the split, where there are several; ``test``, else ``val``, if ``None``.
        class_names: a file of the classes' names.
        seed: seed of the orders of the images and of the bootstrap samples.
        bootstrap: samples for the intervals.
        cache: whether embeddings are kept on disk, and taken from there.
        progress: whether to show progress, by tqdm where it is installed.
    """
    memory = opened_memory(memory)
    encoder = opened(("lite" if memory is None else memory.model) if model is None else model)
    report = _native.evaluate(
        encoder,
        os.fspath(folder),
        None if memory is None else memory._native,
        methods,
        templates,
        k,
        neighbors,
        dataset_format,
        split,
        class_names,
        seed,
        bootstrap,
        cache,
        progress,
    )
    return Evaluation(json.loads(report), encoder.name)
