"""xmore.clip_benchmark with the real CLIP_benchmark and torch, where they are installed; the first run was by hand, with version 1.6.2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from references import IMAGES, LABELS, SIGLIP_OPEN_CLIP

import xmore

FOLDER = f"local-dir:{SIGLIP_OPEN_CLIP}"


class Labeled(list):  # type: ignore[type-arg]
    """A dataset of images and labels."""

    classes = LABELS[: len(IMAGES)]


def test_a_registered_model_is_evaluated(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    models = pytest.importorskip("clip_benchmark.models", reason="CLIP_benchmark is not installed")
    from clip_benchmark.metrics import zeroshot_classification

    from xmore import clip_benchmark

    clip_benchmark.register()
    model, transform, tokenizer = models.load_clip("xmore", FOLDER, "", None, "cpu")
    images = Labeled((transform(Image.open(path)), n) for n, path in enumerate(IMAGES))
    loader = torch.utils.data.DataLoader(images, batch_size=2)
    # Not `evaluate`, whose accuracy does not run with numpy from 2.4 on.
    classifier = zeroshot_classification.zero_shot_classifier(
        model, tokenizer, Labeled.classes, ["a photo of a {c}."], "cpu", amp=False
    )
    logits, target = zeroshot_classification.run_classification(model, classifier, loader, "cpu", amp=False)
    assert target.tolist() == list(range(len(IMAGES)))
    own = xmore.Model(FOLDER)
    expected = own.encode_image(IMAGES) @ own.encode_text(Labeled.classes, template="a photo of a {}.").T
    np.testing.assert_allclose(logits.numpy(), 100 * expected, atol=1e-3)
