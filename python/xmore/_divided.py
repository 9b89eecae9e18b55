"""Builds that are divided among the workers of a cluster: the commands that a worker runs, and where parts are kept."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xmore import XmoreError

# Seconds after which a worker looks again whether another one, which the cluster takes for dead, still writes its part.
BUSY_WAIT = 5.0


class PartIsBusy(XmoreError):
    """Another process still writes the part that a worker was to build."""


@dataclass(frozen=True)
class DividedBuild:
    """A build of the memory in ``path`` from ``sources``, in ``parts`` parts."""

    sources: tuple[str, ...]
    path: str
    model: str
    parts: int
    flags: tuple[str, ...]
    threads: int

    @staticmethod
    def of(
        sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        path: str | os.PathLike[str],
        model: str,
        parts: int,
        flags: Sequence[str],
        threads: int,
    ) -> DividedBuild:
        """The same from what a user gives. Paths are made absolute: workers have working folders of their own."""
        if parts < 1:
            raise ValueError(f"parts: expected at least 1, found {parts}")
        if isinstance(sources, (str, os.PathLike)):
            sources = [sources]
        absolute = tuple(os.path.abspath(source) for source in sources)
        return DividedBuild(absolute, os.path.abspath(path), model, parts, tuple(flags), threads)

    @property
    def folder(self) -> Path:
        """Where the parts are until they are merged."""
        return Path(f"{self.path}.parts")

    def part(self, number: int) -> Path:
        """The folder of a part, counted from 1."""
        return self.folder / f"{number:06}-of-{self.parts:06}"

    def build(self, number: int) -> str:
        """Builds a part, or goes on with it; returns its folder. To be called by a worker."""
        folder = self.part(number)
        folder.parent.mkdir(parents=True, exist_ok=True)
        named = [*self.sources, "--part", f"{number}/{self.parts}", "--model", self.model, "-o", str(folder)]
        self._run(["memory", "build", *named, *self.flags])
        return str(folder)

    def merge(self) -> str:
        """Merges all parts; returns the memory's folder."""
        parts = [str(self.part(number)) for number in range(1, self.parts + 1)]
        self._run(["memory", "merge", *parts, "-o", self.path])
        return self.path

    def _run(self, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "xmore", *arguments, "--threads", str(self.threads)]
        ended = subprocess.run(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_end_with_parent(),
        )
        if ended.returncode == 0:
            return
        told = ended.stderr.strip()
        if "another process is building a memory" in told:
            time.sleep(BUSY_WAIT)
            raise PartIsBusy(told)
        raise XmoreError(
            f"`xmore memory {arguments[1]}` ended with status {ended.returncode}: {told[-4000:]}"
        )


def _end_with_parent() -> Callable[[], None] | None:
    """What a new process calls so that the system kills it when the worker that started it is killed; elsewhere than on Linux nothing does."""
    if not sys.platform.startswith("linux"):
        return None
    set_process = ctypes.CDLL(None).prctl
    parent_death_signal = 1
    return lambda: set_process(parent_death_signal, signal.SIGKILL)
