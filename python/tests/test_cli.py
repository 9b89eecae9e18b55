"""The command line tool in the package."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import TINY

import xmore


def test_it_is_the_tool(command: Callable[..., Any]) -> None:
    assert command("--version").stdout == f"xmore {xmore.__version__}\n"
    assert "Usage: xmore [OPTIONS] <COMMAND>" in command("--help").stdout
    wrong = command("classify", check=False)
    assert wrong.returncode == 2 and "Usage: xmore classify" in wrong.stderr
    missing = command("memory", "info", "/nonexistent", check=False)
    assert (
        missing.returncode == 1 and missing.stderr.startswith("error: ") and "Traceback" not in missing.stderr
    )


def test_output_is_whole(command: Callable[..., Any], pictures: list[Path], tmp_path: Path) -> None:
    done = command(
        "classify", *pictures, "--labels", "cat,dog", "--format", "json", "--model", f"local-dir:{TINY}"
    )
    assert len(json.loads(done.stdout)) == 40
    words = [sys.executable, "-m", "xmore", "embed", *pictures, "-o", "-", "--model", f"local-dir:{TINY}"]
    with open(tmp_path / "rows.npy", "wb") as file:
        subprocess.run([str(word) for word in words], stdout=file, check=True, stderr=subprocess.DEVNULL)
    assert np.load(tmp_path / "rows.npy").shape == (40, 16)


def test_a_signal_ends_it_as_the_tool(pictures: list[Path]) -> None:
    """Its own message and exit status, and no traceback."""
    words = [
        sys.executable,
        "-m",
        "xmore",
        "classify",
        *map(str, pictures * 20),
        "--labels",
        "cat,dog",
        "--format",
        "json",
    ]
    child = subprocess.Popen(
        [*words, "--model", f"local-dir:{TINY}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with child:
        assert child.stdout is not None
        # Its output does not fit into the pipe: it is at work until it is read.
        assert child.stdout.read(1) == b"["
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=120)
    assert child.returncode == 130 and b"interrupted after" in err and b"Traceback" not in err
    assert isinstance(json.loads(b"[" + out), list)
