"""Answers and tables as HTML, for notebooks. Whatever comes from labels, captions and files is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xmore.prediction import Prediction, Predictions

#: Labels, captions and rows that are shown.
_LABELS = 5
_CAPTIONS = 8
_ROWS = 20


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a cell is text, not HTML."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def prediction(answer: Prediction) -> str:
    """One answer, with its best labels and the captions behind it."""
    captions = answer.caption_scores
    rows = [
        [
            label,
            f"{score:.1%}",
            f"{answer.image_scores[label]:.1%}",
            "" if captions is None else f"{captions[label]:.1%}",
        ]
        for label, score in list(answer.scores.items())[:_LABELS]
    ]
    label = escape(answer.label or "none of the labels")
    parts = [
        f"<div><b>{label}</b> by {escape(answer.method)}",
        table(["label", "score", "image", "captions"], rows),
    ]
    if answer.captions:
        shown = [[f"{c.similarity:.3f}", c.vote, c.caption] for c in answer.captions[:_CAPTIONS]]
        parts.append(table(["similarity", "votes for", "caption"], shown))
    return "".join([*parts, "</div>"])


def predictions(answers: Predictions) -> str:
    """Several answers, a row each."""
    rows = []
    for index, answer in enumerate(answers[:_ROWS]):
        if answer is None:
            rows.append([str(index), "could not be read", ""])
        else:
            score = "" if answer.score is None else f"{answer.score:.1%}"
            rows.append([str(index), answer.label or "none of the labels", score])
    more = len(answers) - len(rows)
    return table(["image", "label", "score"], rows) + (f"<p>and {more} more</p>" if more > 0 else "")
