"""Classification: the answers of the command line, to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FIXTURES, LABELS, TINY
from PIL import Image

import xmore

METHODS = ["zero-shot", "templates", "captions", "equal", "xmore", "xmore-kernel"]


def printed(command: Callable[..., Any], images: list[Path], *flags: Any) -> list[dict[str, Any]]:
    """What `xmore classify` prints, without images' names and warnings."""
    done = command("classify", *images, "--format", "json", "--model", f"local-dir:{TINY}", *flags)
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    for answer in answers:
        del answer["image"]
        answer.pop("warnings", None)
    return answers


@pytest.mark.parametrize("method", METHODS)
def test_answers_are_those_of_the_command_line(
    model: xmore.Model, memory: xmore.Memory, pictures: list[Path], command: Callable[..., Any], method: str
) -> None:
    expected = printed(
        command, pictures[:12], "--labels", ",".join(LABELS), "--memory", memory.location, "--method", method
    )
    classify = xmore.Classifier(model, LABELS, memory, method)
    assert [classify(path).to_dict() for path in pictures[:12]] == expected
    assert [answer.to_dict() for answer in classify.predict(pictures[:12], batch_size=5)] == expected


def test_the_default_method_is_that_of_the_command_line(
    model: xmore.Model, memory: xmore.Memory, pictures: list[Path], command: Callable[..., Any]
) -> None:
    for given, flags in ((memory, ["--memory", memory.location]), (None, [])):
        expected = printed(command, pictures[:3], "--labels", ",".join(LABELS), *flags)
        classify = xmore.Classifier(model, LABELS, given)
        assert [classify(path).to_dict() for path in pictures[:3]] == expected
        assert classify.method == expected[0]["method"]


def test_options_are_those_of_the_command_line(
    model: xmore.Model, memory: xmore.Memory, pictures: list[Path], command: Callable[..., Any]
) -> None:
    flags = [
        "-k",
        3,
        "--neighbors",
        9,
        "--template",
        "a {}",
        "--template",
        "the {}",
        "--caption-filter",
        "second",
    ]
    flags += ["--top", 2, "--min-score", 0.9, "--method", "xmore"]
    expected = printed(command, pictures[:5], "--labels", "cat,dog,owl", "--memory", memory.location, *flags)
    classify = xmore.Classifier(
        model,
        ["cat", "dog", "owl"],
        memory,
        "xmore",
        ["a {}", "the {}"],
        3,
        neighbors=9,
        caption_filter="second",
        top=2,
        min_score=0.9,
    )
    assert [classify(path).to_dict() for path in pictures[:5]] == expected
    assert classify(pictures[0]).label is None and len(classify(pictures[0]).captions) == 3


def test_sigmoid_scores(pictures: list[Path], command: Callable[..., Any]) -> None:
    path = FIXTURES / "towers/siglip_scores/transformers"
    model = xmore.Model(path)
    assert model.trained_with_sigmoid and model.logit_bias != 0
    flags = ["--labels", "cat,dog", "--scores", "sigmoid", "--format", "json", "--model", f"local-dir:{path}"]
    expected = json.loads(command("classify", *pictures[:3], *flags).stdout)
    found = xmore.Classifier(model, ["cat", "dog"], scores="sigmoid").predict(pictures[:3])
    for answer, printed_answer in zip(found, expected, strict=True):
        assert answer is not None and answer.scores == printed_answer["scores"]
        assert answer.to_dict()["score_function"] == "sigmoid"


def test_labels_in_all_their_forms(model: xmore.Model, pictures: list[Path], tmp_path: Path) -> None:
    expected = xmore.Classifier(model, ["cat", "hot dog"])(pictures[0]).scores
    file = tmp_path / "labels.txt"
    file.write_text("cat\nhot dog\n")
    forms: list[Any] = [
        "cat,hot dog",
        ("cat", "hot dog"),
        (label for label in ("cat", "hot dog")),
        np.array(["cat", "hot dog"]),
        file,
        {"cat": "a photo of a cat.", "hot dog": ["a photo of a hot dog."]},
        [{"label": "cat"}, {"label": "hot dog", "synonyms": ["frankfurter"]}],
    ]
    for labels in forms:
        classify = xmore.Classifier(model, labels)
        assert classify.labels == ["cat", "hot dog"]
        assert classify(pictures[0]).scores == expected
    own = xmore.Classifier(model, {"cat": "something else", "hot dog": ["x", "y"]})
    assert own(pictures[0]).scores != expected


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        (["cat"], ValueError, "at least 2 are needed"),
        (["cat", "cat"], ValueError, 'label "cat" is given twice'),
        (["cat", 3], TypeError, "labels: expected a string, found int"),
        (3, TypeError, "labels: expected strings, found int"),
        (
            [{"label": "cat", "prompt": "x"}, "dog"],
            ValueError,
            "labels: expected one of label, prompts, synonyms",
        ),
    ],
    ids=str,
)
def test_labels_that_make_no_sense(
    model: xmore.Model, labels: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        xmore.Classifier(model, labels)


def test_options_that_make_no_sense(model: xmore.Model, memory: xmore.Memory) -> None:
    with pytest.raises(ValueError, match="method xmore needs a memory"):
        xmore.Classifier(model, ["cat", "dog"], method="xmore")
    with pytest.raises(ValueError, match='no method "magic"'):
        xmore.Classifier(model, ["cat", "dog"], method="magic")
    with pytest.raises(ValueError, match="trained with a softmax"):
        xmore.Classifier(model, ["cat", "dog"], scores="sigmoid")
    with pytest.raises(ValueError, match="k is 0"):
        xmore.Classifier(model, ["cat", "dog"], memory, k=0)
    with pytest.raises(ValueError, match="expected a model, or a memory"):
        xmore.Classifier(None, ["cat", "dog"])


def test_what_a_prediction_has(model: xmore.Model, memory: xmore.Memory, pictures: list[Path]) -> None:
    answer = xmore.Classifier(model, LABELS, memory, "xmore", k=4)(pictures[3])
    scores = answer.scores
    assert list(scores) == sorted(scores, key=lambda label: -scores[label]) and set(scores) == set(LABELS)
    assert sum(scores.values()) == pytest.approx(1) and answer.label == next(iter(scores))
    assert answer.score == scores[answer.label]
    image, captions = answer.image_scores, answer.caption_scores
    assert captions is not None and answer.image_weight is not None
    weight = answer.image_weight
    for label in LABELS:
        assert scores[label] == pytest.approx(weight * image[label] + (1 - weight) * captions[label])
    assert 0 <= answer.confidences["image"] <= 1 and answer.confidences["captions"] is not None
    assert len(answer.captions) == 4 and isinstance(answer.captions[0], xmore.Caption)
    assert (
        answer.captions[0].vote in LABELS
        and memory.captions[answer.captions[0].id] == answer.captions[0].caption
    )
    assert answer.gate is None and xmore.Classifier(model, LABELS, memory)(pictures[3]).gate is not None
    text = answer.explain()
    assert answer.label in text and answer.captions[0].caption in text and "weight" in text
    assert answer.label in repr(answer)
    plain = xmore.Classifier(model, LABELS)(pictures[3])
    assert plain.caption_scores is None and plain.captions == [] and plain.confidences["captions"] is None
    assert "no captions" in plain.explain()


def test_html_is_escaped(model: xmore.Model, pictures: list[Path]) -> None:
    classify = xmore.Classifier(model, ["<b>cat</b>", "<i>dog</i>"], templates="{}")
    for html in (classify(pictures[0])._repr_html_(), classify.predict(pictures)._repr_html_()):
        assert "<i>" not in html and "<b>cat" not in html and ("&lt;i&gt;" in html or "&lt;b&gt;" in html)
        assert html.count("<table>") == html.count("</table>") > 0


def test_predictions_as_tables(model: xmore.Model, memory: xmore.Memory, pictures: list[Path]) -> None:
    classify = xmore.Classifier(model, LABELS, memory, "xmore")
    answers = classify.predict(pictures[:6])
    assert len(answers) == 6 and isinstance(answers[:2], xmore.Predictions) and len(answers[:2]) == 2
    scores = answers.to_numpy()
    assert scores.shape == (6, 4) and scores.dtype == np.float64
    assert scores[2].tolist() == [answers[2].scores[label] for label in LABELS]
    frame = answers.to_pandas()
    assert frame["label"].tolist() == [answer.label for answer in answers] and len(frame.columns) == 8
    table = answers.to_arrow()
    assert table.column_names == list(frame.columns) and table["score"].to_pylist() == frame["score"].tolist()
    assert table["captions"][0].as_py()[0]["caption"] == answers[0].captions[0].caption
    assert "6 images" in repr(answers)


def test_images_that_cannot_be_read(model: xmore.Model, pictures: list[Path]) -> None:
    classify = xmore.Classifier(model, LABELS)
    with pytest.raises(xmore.ImageError):
        classify(b"no image")
    with pytest.raises(FileNotFoundError):
        classify("nothing.png")
    with pytest.raises(xmore.ImageError, match=r"images\[1\]"):
        classify.predict([pictures[0], b"none"])
    with pytest.warns(xmore.SkippedImages, match="1 of 3"):
        answers = classify.predict([pictures[0], b"none", pictures[1]], on_error="nan")
    assert answers[1] is None and answers[2] == classify(pictures[1])
    assert np.isnan(answers.to_numpy()).all(axis=1).tolist() == [False, True, False]
    assert answers.to_pandas()["label"].isna().tolist() == [False, True, False]
    assert answers.to_arrow()["label"].null_count == 1 and "could not be read" in answers._repr_html_()
    with pytest.warns(xmore.SkippedImages):
        assert len(classify.predict([pictures[0], b"none", pictures[1]], on_error="skip")) == 2


def test_every_form_of_an_image_has_the_same_answer(
    model: xmore.Model, memory: xmore.Memory, pictures: list[Path]
) -> None:
    classify = xmore.Classifier(None, LABELS, memory.location)
    expected = xmore.Classifier(model, LABELS, memory)(pictures[5])
    with Image.open(pictures[5]) as image:
        for form in (str(pictures[5]), pictures[5].read_bytes(), image, np.asarray(image)):
            assert classify(form) == expected


def test_labels_that_the_model_cannot_tell_apart_are_told(model: xmore.Model) -> None:
    with pytest.warns(xmore.XmoreWarning):
        xmore.Classifier(model, ["☃", "☂"], templates="{}")
