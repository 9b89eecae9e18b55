"""Pairs, and what a build of them on one machine gives, for the tests of builds on clusters.

Run as a program, `divided.py MEMORY`, it kills workers that build parts of MEMORY until it is ended, and prints the killed processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

TINY = Path(__file__).resolve().parents[2] / "crates/xmore-clip/tests/fixtures/tiny"
MODEL = f"local-dir:{TINY}"
FLAGS = ["--max-skipped", "100%", "--checkpoint-seconds", "0"]


def is_broken(i: int) -> bool:
    return i % 17 == 3


def broken(count: int) -> int:
    return sum(is_broken(i) for i in range(count))


def pairs(folder: Path, count: int) -> Path:
    """A table of pictures with captions, of which some come again; some pictures are broken."""
    from PIL import Image

    (folder / "photos").mkdir()
    rows = ["image_path,caption"]
    for i in range(count):
        path = folder / "photos" / f"{i:04}.png"
        if is_broken(i):
            path.write_bytes(b"no picture")
        else:
            side = 20 + i % 13
            pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        rows += [f"photos/{i:04}.png,picture {i}", f"photos/{i:04}.png,a thing seen often {i % 5}"]
        if i % 40 == 7:
            rows.append(f"photos/{i:04}.png,so long {'word ' * 60}{i % 80}")
    table = folder / "pairs.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def build(table: Path, memory: Path) -> None:
    """Builds at once, by the command."""
    command = [
        sys.executable,
        "-m",
        "xmore",
        "memory",
        "build",
        str(table),
        "-o",
        str(memory),
        "--model",
        MODEL,
        *FLAGS,
    ]
    subprocess.run(command, check=True, capture_output=True)


def assert_same_files(found: Path, expected: Path) -> None:
    """Every file but the lock, byte for byte."""
    files = [
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (found, expected)
    ]
    for content in files:
        content.pop(".xmore-lock", None)
    different = [
        name for name in files[0].keys() | files[1].keys() if files[0].get(name) != files[1].get(name)
    ]
    assert not different, different


def working_on(memory: str) -> list[int]:
    """Processes that build a part of a memory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"--part" in arguments and any(
                argument.startswith(f"{memory}.parts/".encode()) for argument in arguments
            ):
                found.append(int(entry.name))
    return found


def has_written(process: int) -> bool:
    """Whether the part that a process builds has rows that are durable."""
    try:
        arguments = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        part = Path(os.fsdecode(arguments[arguments.index(b"-o") + 1]))
        return '"consumed": 0' not in (part / ".xmore-building/checkpoint.json").read_text()
    except (OSError, ValueError):
        return False


def kill_workers(memory: str, most: int) -> None:
    """Kills the workers of the cluster, not only what they run, at up to `most` moments."""
    killed = 0
    while killed < most:
        for process in filter(has_written, working_on(memory)):
            try:
                worker = int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
                os.kill(worker, signal.SIGKILL)
            except (OSError, ValueError):
                continue
            print(worker, flush=True)
            killed += 1
            time.sleep(0.5)
            break
        time.sleep(0.001)


if __name__ == "__main__":
    kill_workers(sys.argv[1], most=3)
