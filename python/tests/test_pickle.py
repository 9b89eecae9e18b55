"""Objects pickle by what they were opened from."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import LABELS, TINY

import xmore


def test_a_model(model: xmore.Model, pictures: list[Path]) -> None:
    again = pickle.loads(pickle.dumps(model))
    assert again.fingerprint == model.fingerprint and again.name == model.name
    np.testing.assert_array_equal(again.encode_image(pictures[:3]), model.encode_image(pictures[:3]))
    assert len(pickle.dumps(model)) < 2000, "weights do not travel"


def test_choices_travel() -> None:
    model = xmore.Model(TINY, threads=1, orientation="stored", resize_mode="longest")
    again = pickle.loads(pickle.dumps(model))
    assert again.threads == 1 and again.orientation == "stored"
    image = np.arange(20 * 60 * 3, dtype=np.uint8).reshape(20, 60, 3)
    np.testing.assert_array_equal(again.preprocess(image), model.preprocess(image))


def test_relative_paths_are_found_from_other_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TINY.parent)
    pickled = [pickle.dumps(xmore.Model(name)) for name in (Path("tiny"), "local-dir:tiny", f".{os.sep}tiny")]
    monkeypatch.chdir(tmp_path)
    for each in pickled:
        assert pickle.loads(each).dim == 16


def test_another_model_in_its_place_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in TINY.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    pickled = pickle.dumps(xmore.Model(folder))
    assert pickle.loads(pickled).dim == 16
    path = folder / "open_clip_config.json"
    path.write_text(path.read_text() + "\n ")
    changed = folder / "heads.safetensors"
    data = bytearray(changed.read_bytes())
    data[-1] ^= 0x40
    changed.write_bytes(data)
    with pytest.raises(xmore.ModelMismatch, match="expected"):
        pickle.loads(pickled)


def test_a_memory(memory: xmore.Memory) -> None:
    again = pickle.loads(pickle.dumps(memory))
    assert len(again) == len(memory) and again.search("picture", 3) == memory.search("picture", 3)


def test_a_classifier_and_its_answers(model: xmore.Model, memory: xmore.Memory, pictures: list[Path]) -> None:
    labels = [
        {"label": LABELS[0], "prompts": ["a {}"]},
        {"label": LABELS[1], "synonyms": ["a thing"]},
        "zebra",
    ]
    for given in (memory, None):
        classify = xmore.Classifier(model, labels, given, templates=["a {}", "the {}"], k=3, top=2)
        again = pickle.loads(pickle.dumps(classify))
        assert again.method == classify.method and again.labels == classify.labels
        answer = classify(pictures[0])
        assert again(pictures[0]) == answer
        restored = pickle.loads(pickle.dumps(answer))
        assert restored == answer and restored.scores == answer.scores and restored.label == answer.label
        many = pickle.loads(pickle.dumps(classify.predict(pictures[:3])))
        np.testing.assert_array_equal(many.to_numpy(), classify.predict(pictures[:3]).to_numpy())
