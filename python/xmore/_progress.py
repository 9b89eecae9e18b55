"""Progress bars: tqdm's where it is installed, else none."""

from __future__ import annotations

import sys
import warnings
from typing import Any


class Bar:
    """A bar that appears with the first progress. The native module calls it."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Any = None
        self._tqdm: Any = None
        try:
            with warnings.catch_warnings():
                # That a notebook has no widgets, so that bars are text.
                warnings.simplefilter("ignore")
                from tqdm.auto import tqdm
        except ModuleNotFoundError:
            return
        self._tqdm = tqdm

    def done(self, done: int, total: int | None) -> None:
        """So many are done of so many, as far as is known."""
        if self._tqdm is None:
            return
        if self._bar is None:
            # What is done at the first call was done before.
            self._bar = self._tqdm(total=total, initial=done, unit=self._unit, unit_scale=self._unit == "B")
        if total is not None and self._bar.total != total:
            self._bar.total = total
        self._bar.update(done - self._bar.n)

    def fetching(self, what: str, total: int | None) -> None:
        """A download begins."""
        self.close()
        if self._tqdm is not None:
            self._bar = self._tqdm(total=total, unit="B", unit_scale=True, desc=what)

    def note(self, text: str) -> None:
        """Something to know, such as a model's license."""
        if self._tqdm is None:
            print(text, file=sys.stderr)
        else:
            self._tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
