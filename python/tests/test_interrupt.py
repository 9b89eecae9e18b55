"""Ctrl-C: every long call ends, and says so as KeyboardInterrupt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from conftest import TINY

import xmore

#: What only a process that hangs needs, in seconds.
LIMIT = 120

CALLS = {
    "encode_image": "model.encode_image(forever())",
    "encode_image of paths": "model.encode_image(itertools.repeat(path))",
    "predict": "xmore.Classifier(model, ['cat', 'dog']).predict(forever())",
    "build": "xmore.Memory.build(table, folder + '/memory', model, progress=False)",
    "encode_text": "model.encode_text([f'a text with the number {i}' for i in range(50_000)] * 20)",
}


@pytest.mark.parametrize("call", CALLS)
def test_a_signal_interrupts(call: str, pictures: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    rows = [f"{tmp_path}/{i}.png,picture {i}" for i in range(20_000)]
    if call == "build":
        for i in range(20_000):
            os.link(pictures[i % 40], tmp_path / f"{i}.png")
    table.write_text("image_path,caption\n" + "\n".join(rows) + "\n")
    program = f"""
        import itertools, threading, sys
        import numpy as np
        import xmore

        model = xmore.Model("local-dir:{TINY}")
        path, table, folder = {str(pictures[0])!r}, {str(table)!r}, {str(tmp_path)!r}
        image = np.zeros((300, 300, 3), np.uint8)

        def forever():
            while True:
                yield image

        # After the first call towers are loaded, and the next is at work soon.
        model.encode_image(path), model.encode_text("a")
        threading.Timer(0.5, lambda: print("working", flush=True)).start()
        try:
            {CALLS[call]}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            # And the model works on.
            assert model.encode_image(path).shape == (16,)
            sys.exit(7)
        print("done", flush=True)
    """
    # Also where the tests themselves run with SIGINT ignored, as a shell's background jobs do.
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "working\n"
        child.send_signal(signal.SIGINT)
        start = time.monotonic()
        assert child.stdout.readline() == "interrupted\n", call
        assert time.monotonic() - start < 30
        assert child.wait(LIMIT) == 7


def test_an_interrupted_build_goes_on(pictures: list[Path], model: xmore.Model, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("image_path,caption\n" + "".join(f"{path},{path.name}\n" for path in pictures))

    class Stop:
        """A bar that interrupts with the first progress."""

        def __init__(self, unit: str) -> None:
            pass

        def done(self, done: int, total: int | None) -> None:
            raise KeyboardInterrupt

        def close(self) -> None:
            pass

    import xmore._progress

    original = xmore._progress.Bar
    xmore._progress.Bar = Stop  # type: ignore[assignment,misc]
    try:
        with pytest.raises(KeyboardInterrupt):
            xmore.Memory.build(table, tmp_path / "memory", model)
    finally:
        xmore._progress.Bar = original  # type: ignore[misc]
    assert len(xmore.Memory.build(table, tmp_path / "memory", model, progress=False)) == 40
