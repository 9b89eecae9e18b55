"""xmore.fiftyone with the real FiftyOne, where it is installed; the first run was by hand, with FiftyOne 1.22.1."""

from __future__ import annotations

import numpy as np
import pytest
from references import CHINESE_CLIP, IMAGES, LABELS

import xmore


def test_a_dataset_gets_labels_and_embeddings() -> None:
    fiftyone = pytest.importorskip("fiftyone", reason="FiftyOne is not installed")
    from xmore.fiftyone import ClassifierModel

    classifier = xmore.Classifier(xmore.Model(CHINESE_CLIP), LABELS)
    model = ClassifierModel(classifier)
    dataset = fiftyone.Dataset.from_images([str(path) for path in IMAGES])
    try:
        dataset.apply_model(model, label_field="xmore")
        dataset.compute_embeddings(model, embeddings_field="embedding")
        expected = [classifier(path) for path in IMAGES]
        found = [sample["xmore"] for sample in dataset]
        assert [label.label for label in found] == [answer.label for answer in expected]
        assert [label.confidence for label in found] == pytest.approx([answer.score for answer in expected], abs=1e-6)
        rows = np.stack([sample["embedding"] for sample in dataset])
        np.testing.assert_allclose(rows, classifier.model.encode_image(IMAGES), atol=1e-6)
        assert np.array_equal(model.embed_prompts(LABELS), classifier.model.encode_text(LABELS))
    finally:
        dataset.delete()
