"""xmore.sklearn in scikit-learn's own pipelines, searches and checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from references import CHINESE_CLIP
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import xmore
from xmore.sklearn import ImageEncoder, ZeroShotClassifier


@pytest.fixture(scope="module")
def colored(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """Red and blue pictures, and their names."""
    folder, rng = tmp_path_factory.mktemp("colored"), np.random.default_rng(0)
    paths, names = [], []
    for n in range(24):
        name, channel = (("red", 0), ("blue", 2))[n % 2]
        pixels = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        pixels[:, :, channel] = rng.integers(180, 255, (32, 32), dtype=np.uint8)
        path = folder / f"{n}.png"
        Image.fromarray(pixels).save(path)
        paths.append(str(path))
        names.append(name)
    return paths, names


def test_a_pipeline_with_logistic_regression_learns_from_embeddings(
    colored: tuple[list[str], list[str]],
) -> None:
    paths, names = colored
    pipeline = make_pipeline(ImageEncoder(str(CHINESE_CLIP)), LogisticRegression(C=100))
    assert cross_val_score(pipeline, paths, names, cv=3).mean() == 1.0
    grid = GridSearchCV(pipeline, {"imageencoder__batch_size": [1, 8], "logisticregression__C": [100]}, cv=2)
    grid.fit(paths, names)
    assert set(grid.predict(paths)) == {"red", "blue"}
    encoder = pipeline.fit(paths, names).named_steps["imageencoder"]
    assert list(encoder.get_feature_names_out())[:2] == ["embedding0", "embedding1"]
    assert len(encoder.get_feature_names_out()) == xmore.Model(CHINESE_CLIP).dim


def test_all_forms_of_x_give_the_same_embeddings(colored: tuple[list[str], list[str]]) -> None:
    paths = colored[0][:4]
    encoder = ImageEncoder(str(CHINESE_CLIP)).fit()
    expected = xmore.Model(CHINESE_CLIP).encode_image(paths)
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    forms: list[Any] = [
        paths,
        [Path(path) for path in paths],
        np.array(paths),
        np.array(paths)[:, None],
        pd.Series(paths),
        pd.DataFrame({"path": paths}),
        [Image.open(path) for path in paths],
        pixels,
        list(pixels),
    ]
    for form in forms:
        assert np.array_equal(encoder.transform(form), expected)
    assert encoder.transform([]).shape == (0, expected.shape[1])
    with pytest.raises(ValueError, match="one-dimensional or"):
        encoder.transform(np.zeros((3, 4)))


def test_unreadable_images_raise_or_are_nan(colored: tuple[list[str], list[str]]) -> None:
    given = [colored[0][0], "missing.png"]
    with pytest.raises(FileNotFoundError):
        ImageEncoder(str(CHINESE_CLIP)).fit().transform(given)
    with pytest.warns(xmore.SkippedImages):
        rows = ImageEncoder(str(CHINESE_CLIP), on_error="nan").fit().transform(given)
    assert np.isnan(rows).all(axis=1).tolist() == [False, True]
    with pytest.raises(ValueError, match="on_error: expected raise or nan"):
        ImageEncoder(str(CHINESE_CLIP), on_error="skip").fit()


def test_the_zero_shot_classifier_answers_as_the_classifier(colored: tuple[list[str], list[str]]) -> None:
    paths, names = colored
    labels = ["red", "blue", "a Red car!"]
    given = ZeroShotClassifier(str(CHINESE_CLIP), labels).fit()
    assert given.classes_.tolist() == sorted(labels)
    expected = xmore.Classifier(xmore.Model(CHINESE_CLIP), labels).predict(paths)
    assert given.predict(paths).tolist() == [answer.label for answer in expected if answer is not None]
    assert np.array_equal(given.predict_proba(paths), expected.to_numpy()[:, np.argsort(labels)])
    learned = ZeroShotClassifier(str(CHINESE_CLIP)).fit(paths, names)
    assert learned.classes_.tolist() == ["blue", "red"]
    assert 0 <= learned.score(paths, names) <= 1
    assert cross_val_score(
        ZeroShotClassifier(str(CHINESE_CLIP), ["red", "blue"]), paths, names, cv=2
    ).shape == (2,)
    with pytest.raises(ValueError, match="labels: expected labels, or y"):
        ZeroShotClassifier(str(CHINESE_CLIP)).fit()
    with pytest.raises(ValueError, match="y: expected the labels red, blue, found green"):
        ZeroShotClassifier(str(CHINESE_CLIP), ["red", "blue"]).fit(paths[:2], ["red", "green"])


def estimators() -> list[Any]:
    return [ImageEncoder(str(CHINESE_CLIP)), ZeroShotClassifier(str(CHINESE_CLIP), ["red", "blue"])]


def test_parameters_are_kept_and_cloned() -> None:
    for estimator in estimators():
        assert clone(estimator).get_params() == estimator.get_params()
        assert clone(estimator.fit()).get_params() == estimator.get_params()


#: scikit-learn's checks that hand no table of numbers to ``fit``; where X is something else, it chooses none by itself.
APPLICABLE = [
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
]


@pytest.mark.parametrize("name", APPLICABLE)
def test_scikit_learns_own_checks(name: str) -> None:
    for estimator in estimators():
        getattr(estimator_checks, name)(type(estimator).__name__, estimator)
