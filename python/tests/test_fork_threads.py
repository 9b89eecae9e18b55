"""Forks, other processes and threads do no harm."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import LABELS

import xmore

#: What only a process that hangs needs.
LIMIT = 120


def _encode(model: xmore.Model, paths: list[Path]) -> Any:
    return model.encode_image(paths)


def _classify(classify: xmore.Classifier, path: Path) -> xmore.Prediction:
    return classify(path)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_objects_travel_to_worker_processes(
    model: xmore.Model, memory: xmore.Memory, pictures: list[Path], method: str
) -> None:
    expected = model.encode_image(pictures)
    classify = xmore.Classifier(model, LABELS, memory)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, context) as workers:
        halves = [workers.submit(_encode, model, part) for part in (pictures[:20], pictures[20:])]
        found = np.concatenate([half.result(LIMIT) for half in halves])
        assert workers.submit(_classify, classify, pictures[0]).result(LIMIT) == classify(pictures[0])
    np.testing.assert_array_equal(found, expected)


def _in_fork(work: Any) -> bytes:
    """What `work` returns in a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(LIMIT)
        status = 1
        try:
            os.write(writer, work())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, said
    return said


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_an_open_model_works_after_a_fork(
    model: xmore.Model, memory: xmore.Memory, pictures: list[Path]
) -> None:
    expected = model.encode_image(pictures)
    classify = xmore.Classifier(model, LABELS, memory)
    answer = classify(pictures[1])
    assert _in_fork(lambda: model.encode_image(pictures).tobytes()) == expected.tobytes()
    assert _in_fork(lambda: str(classify(pictures[1]) == answer).encode()) == b"True"
    # A fork of a fork, and the parent afterwards.
    assert (
        _in_fork(lambda: _in_fork(lambda: model.encode_image(pictures[0]).tobytes())) == expected[0].tobytes()
    )
    np.testing.assert_array_equal(model.encode_image(pictures), expected)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_amid_a_call_is_refused_in_the_child(model: xmore.Model, pictures: list[Path]) -> None:
    """Locks that another thread held would never be given back: an error, not a hang."""
    said = []

    def images() -> Any:
        yield pictures[0]

        def work() -> bytes:
            try:
                model.encode_image(pictures)
            except RuntimeError as error:
                return str(error).encode()
            return b"no error"

        said.append(_in_fork(work))
        yield pictures[1]

    assert model.encode_image(images(), batch_size=1).shape == (2, 16)
    assert b"was forked while xmore was computing" in said[0]


def test_threads_share_a_model(model: xmore.Model, memory: xmore.Memory, pictures: list[Path]) -> None:
    expected = model.encode_image(pictures)
    classify = xmore.Classifier(model, LABELS, memory)
    answers = classify.predict(pictures[:8])
    with ThreadPoolExecutor(8) as threads:
        rows = list(threads.map(model.encode_image, [pictures] * 16))
        single = list(threads.map(classify, pictures[:8]))
        hits = list(threads.map(memory.search, ["picture 3"] * 8))
    for each in rows:
        np.testing.assert_array_equal(each, expected)
    assert single == list(answers) and all(each == hits[0] for each in hits)


def test_the_interpreter_is_free_meanwhile(model: xmore.Model, pictures: list[Path]) -> None:
    """Another thread of Python's goes on while images are encoded."""
    counted, done = 0, threading.Event()

    def count() -> None:
        nonlocal counted
        while not done.is_set():
            counted += 1
            done.wait(0.0001)

    other = threading.Thread(target=count)
    other.start()
    before = counted
    try:
        model.encode_image(pictures * 100)
    finally:
        done.set()
        other.join()
    assert counted - before >= 10


def test_pools_of_different_sizes(pictures: list[Path], model: xmore.Model) -> None:
    expected = model.encode_image(pictures)
    from conftest import TINY

    for threads in (1, 2, 5):
        np.testing.assert_array_equal(xmore.Model(TINY, threads=threads).encode_image(pictures), expected)
