"""Answers as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xmore.prediction import Prediction

#: Labels of a distribution that are shown.
_SHOWN = 3


def explanation(prediction: Prediction) -> str:
    """Why a prediction is the answer."""
    fields = prediction.to_dict()
    lines = [f"{prediction.label or 'none of the labels'} by {prediction.method}"]
    lines.append(_line("scores", prediction.scores, None))
    lines.append(_line("image", prediction.image_scores, prediction.confidences["image"]))
    captions = prediction.caption_scores
    if captions is None:
        return "\n".join([*lines, "no captions"])
    lines.append(_line("captions", captions, prediction.confidences["captions"]))
    if prediction.method == "xmore" and prediction.image_weight is not None:
        weight = prediction.image_weight
        lines.append(f"weight    image {weight:.0%}, captions {1 - weight:.0%}")
    memory = fields.get("memory")
    if prediction.method == "xmore-kernel" and memory is not None and prediction.gate is not None:
        if memory["opened_by"] is None:
            lines.append(
                "memory    its captions are not used: too little shows that it knows the labels of this image"
            )
        else:
            lines.append(f"memory    used with a weight of {prediction.gate:.0%}: {memory['opened_because']}")
    lines.extend(f"  {each.similarity:.3f}  {each.vote}: {each.caption}" for each in prediction.captions)
    return "\n".join(lines)


def _line(name: str, distribution: dict[str, float], confidence: float | None) -> str:
    best = list(distribution.items())[:_SHOWN]
    shown = ", ".join(f"{label} {score:.1%}" for label, score in best)
    return f"{name:<10}{shown}" + ("" if confidence is None else f" (confidence {confidence:.3f})")
