"""Model.encode: the call of sentence-transformers'."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from references import CHINESE_CLIP, IMAGES, LABELS

import xmore


@pytest.fixture(scope="module")
def clip() -> xmore.Model:
    return xmore.Model(CHINESE_CLIP)


def test_texts_and_images_in_one_list_keep_their_places(clip: xmore.Model) -> None:
    texts, images = clip.encode_text(LABELS[:2]), clip.encode_image(IMAGES[:2])
    mixed = [LABELS[0], Image.open(IMAGES[0]), Image.open(IMAGES[1]), LABELS[1]]
    found = clip.encode(mixed)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.stack([texts[0], images[0], images[1], texts[1]]))


def test_one_input_gives_one_vector(clip: xmore.Model) -> None:
    assert np.array_equal(clip.encode(LABELS[0]), clip.encode_text(LABELS[0]))
    assert np.array_equal(clip.encode(Image.open(IMAGES[0])), clip.encode_image(IMAGES[0]))
    array = np.asarray(Image.open(IMAGES[0]).convert("RGB"))
    assert clip.encode(array).shape == (clip.dim,)
    assert clip.encode([]).shape == (0, clip.dim)


def test_the_names_of_sentence_transformers_are_taken(clip: xmore.Model) -> None:
    found = clip.encode(
        LABELS, batch_size=2, show_progress_bar=False, normalize_embeddings=True, convert_to_numpy=True
    )
    assert np.array_equal(found, clip.encode_text(LABELS))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
