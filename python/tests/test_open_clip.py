"""xmore.open_clip: code written for open_clip, and what the real open_clip answers to it."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from PIL import Image
from references import IMAGES, LABELS, REFERENCES, SIGLIP_OPEN_CLIP

from xmore import open_clip
from xmore.open_clip import torch

EXPECTED = REFERENCES["open_clip"]
FOLDER = f"local-dir:{SIGLIP_OPEN_CLIP}"


def test_the_example_of_open_clips_readme_runs_and_answers_the_same() -> None:
    model, _, preprocess = open_clip.create_model_and_transforms(FOLDER)
    model.eval()
    tokenizer = open_clip.get_tokenizer(FOLDER)

    for n, path in enumerate(IMAGES):
        image = preprocess(Image.open(path)).unsqueeze(0)
        text = tokenizer(LABELS)

        with torch.no_grad(), torch.autocast("cuda"):
            image_features = model.encode_image(image)
            text_features = model.encode_text(text)
            image_features /= image_features.norm(dim=-1, keepdim=True)
            text_features /= text_features.norm(dim=-1, keepdim=True)

            text_probs = (100.0 * image_features @ text_features.T).softmax(dim=-1)

        assert text.tolist() == EXPECTED["tokens"]
        np.testing.assert_allclose(image_features, EXPECTED["image_features"][n : n + 1], atol=2e-5, rtol=0)
        np.testing.assert_allclose(text_features, EXPECTED["text_features"], atol=2e-5, rtol=0)
        np.testing.assert_allclose(text_probs, EXPECTED["text_probs"][n : n + 1], atol=1e-3, rtol=0)


def test_scale_and_bias_are_those_of_open_clip() -> None:
    model, preprocess = open_clip.create_model_from_pretrained(FOLDER)
    assert float(model.logit_scale) == pytest.approx(EXPECTED["logit_scale"], abs=1e-6)
    assert model.logit_bias is not None
    assert float(model.logit_bias) == pytest.approx(EXPECTED["logit_bias"], abs=1e-6)
    images = torch.stack([preprocess(path) for path in IMAGES])
    text = open_clip.get_tokenizer(FOLDER)(LABELS)
    image_features, text_features, scale, bias = model(images, text)
    logits, transposed = model.get_logits(images, text)
    expected = math.exp(EXPECTED["logit_scale"]) * image_features @ text_features.T + EXPECTED["logit_bias"]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(transposed, expected.T, atol=1e-5)
    assert float(scale) == pytest.approx(math.exp(EXPECTED["logit_scale"]))
    assert bias == model.logit_bias


def test_a_preprocessed_image_has_the_features_of_its_file() -> None:
    model, preprocess = open_clip.create_model_from_pretrained(FOLDER)
    pixels = torch.cat([preprocess(path).unsqueeze(0) for path in IMAGES])
    assert np.array_equal(model.encode_image(pixels), model.model.encode_image(IMAGES))


def test_arguments_that_make_no_sense_are_told() -> None:
    model = open_clip.create_model(FOLDER)
    with pytest.raises(ValueError, match="precision: expected one of fp32"):
        open_clip.create_model(FOLDER, precision="fp64")
    with pytest.raises(ValueError, match="device: expected cpu"):
        model.to("cuda")
    assert model.to("cpu") is model
    with pytest.raises(ValueError, match="expected 4 axes"):
        model.encode_image(np.zeros((3, 32, 32), dtype=np.float32))
    with pytest.raises(ValueError, match="expected"):
        model.encode_image(np.zeros((1, 3, 31, 32), dtype=np.float32))
    with pytest.raises(ValueError, match="context_length: expected 64, found 77"):
        open_clip.get_tokenizer(FOLDER, 77)


def test_tensors_answer_to_torchs_names() -> None:
    x = np.array([[3.0, 4.0], [0.0, -1.0]], dtype=np.float32).view(open_clip.Tensor)
    assert x.unsqueeze(0).shape == (1, 2, 2)
    assert x.norm(dim=-1, keepdim=True).tolist() == [[5.0], [1.0]]
    assert float(x.norm()) == pytest.approx(math.sqrt(26))
    assert x.mean(dim=0).tolist() == [1.5, 1.5]
    assert x.sum(dim=1, keepdim=True).tolist() == [[7.0], [-1.0]]
    assert x.argmax(dim=1).tolist() == [1, 0]
    assert x.argmax().item() == 1
    values, places = x.topk(1)
    assert (values.tolist(), places.tolist()) == ([[4.0], [0.0]], [[1], [0]])
    assert x.softmax(dim=-1).sum(dim=-1).tolist() == pytest.approx([1.0, 1.0])
    assert torch.softmax(x, dim=-1).tolist() == x.softmax(dim=-1).tolist()
    large = np.array([-1000.0, 0.0, 1000.0]).view(open_clip.Tensor)
    assert large.sigmoid().tolist() == [0.0, 0.5, 1.0]
    assert type(x.numpy()) is np.ndarray
    assert x.detach().cpu().to("cpu").float() is not None
    assert x.t().tolist() == [[3.0, 0.0], [4.0, -1.0]]
    assert np.array_equal(pickle.loads(pickle.dumps(x)), x)
