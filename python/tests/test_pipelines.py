"""xmore.pipeline, against the answers of transformers'."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from references import CHINESE_CLIP, IMAGES, LABELS, REFERENCES, SIGLIP

import xmore

FOLDERS = {"transformers": SIGLIP, "chinese_clip": CHINESE_CLIP}


@pytest.mark.parametrize("expected", REFERENCES["pipelines"], ids=lambda e: f"{e['model']}-{e['template']}")
def test_answers_are_those_of_transformers(expected: dict[str, Any]) -> None:
    classify = xmore.pipeline("zero-shot-image-classification", model=FOLDERS[expected["model"]])
    options = {} if expected["template"] is None else {"hypothesis_template": expected["template"]}
    found = classify([str(path) for path in IMAGES], candidate_labels=LABELS, **options)
    assert len(found) == len(expected["answers"])
    for answers, wanted in zip(found, expected["answers"], strict=True):
        assert [answer["label"] for answer in answers] == [answer["label"] for answer in wanted]
        scores = [answer["score"] for answer in answers]
        assert scores == pytest.approx([answer["score"] for answer in wanted], abs=1e-5, rel=0)
    total = sum(answer["score"] for answer in found[0])
    assert (abs(total - 1) < 1e-9) == (expected["model"] == "chinese_clip")


def test_an_image_a_list_and_an_iterator_get_the_same_answers() -> None:
    classify = xmore.pipeline("zero-shot-image-classification", CHINESE_CLIP)
    several = classify(IMAGES, LABELS)
    assert classify(str(IMAGES[0]), candidate_labels=LABELS) == several[0]
    assert classify(Image.open(IMAGES[1]), candidate_labels=LABELS) == several[1]
    assert classify(images=IMAGES, candidate_labels=LABELS, batch_size=2) == several
    lazy = classify(iter(IMAGES), LABELS)
    assert isinstance(lazy, Iterator)
    assert list(lazy) == several


def test_an_image_behind_an_address_is_fetched() -> None:
    class Serve(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(Path(IMAGES[0]).parent))

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        classify = xmore.pipeline(model=CHINESE_CLIP)
        address = f"http://127.0.0.1:{server.server_port}/{IMAGES[0].name}"
        assert classify(address, candidate_labels=LABELS, timeout=10) == classify(IMAGES[0], LABELS)
    finally:
        server.shutdown()
        server.server_close()


def test_arguments_that_make_no_sense_are_told() -> None:
    with pytest.raises(ValueError, match="task: expected zero-shot-image-classification"):
        xmore.pipeline("text-classification", CHINESE_CLIP)
    classify = xmore.pipeline(model=CHINESE_CLIP)
    with pytest.raises(ValueError, match="image: expected"):
        classify(candidate_labels=LABELS)
    with pytest.raises(ValueError, match="candidate_labels: expected a list"):
        classify(IMAGES[0], "dog, cat")
    with pytest.raises(ValueError, match="at least one label"):
        classify(IMAGES[0], [])
    with pytest.raises(FileNotFoundError):
        classify("missing.png", LABELS)
