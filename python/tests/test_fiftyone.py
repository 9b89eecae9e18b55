"""xmore.fiftyone with the real FiftyOne, where it is installed; the first run was by hand, with FiftyOne 1.22.1.

A dataset needs MongoDB, so this goes through what ``apply_model`` and ``compute_embeddings`` call, on samples without a dataset.
"""

from __future__ import annotations

import numpy as np
import pytest
from references import CHINESE_CLIP, IMAGES, LABELS

import xmore


def test_samples_get_labels_and_embeddings() -> None:
    fiftyone = pytest.importorskip("fiftyone", reason="FiftyOne is not installed")
    from fiftyone.core import models
    from fiftyone.utils import image as images

    from xmore.fiftyone import ClassifierModel

    classifier = xmore.Classifier(xmore.Model(CHINESE_CLIP), LABELS)
    model = ClassifierModel(classifier)
    assert isinstance(model, models.Model)
    assert (model.media_type, model.ragged_batches, model.transforms, model.has_logits) == (
        "image",
        False,
        None,
        False,
    )
    assert model.has_embeddings and model.can_embed_prompts
    arrays = [images.read(str(path)) for path in IMAGES]
    with model:
        labels = model.predict_all(arrays)
    for path, array, label in zip(IMAGES, arrays, labels, strict=True):
        sample = fiftyone.Sample(filepath=str(path))
        sample.add_labels(model.predict(array), label_field="xmore")
        expected = classifier(array)
        assert sample["xmore"].label == label.label == expected.label
        assert sample["xmore"].confidence == pytest.approx(expected.score, abs=1e-6)
    rows = model.embed_all(arrays)
    assert np.array_equal(rows, classifier.model.encode_image(arrays))
    assert np.array_equal(model.embed(arrays[0]), rows[0])
    assert np.array_equal(model.embed_prompts(LABELS), classifier.model.encode_text(LABELS))
    assert np.array_equal(model.embed_prompt(LABELS[0]), classifier.model.encode_text(LABELS[0]))
