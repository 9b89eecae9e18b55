"""Packages that are used only where they are asked for."""

from __future__ import annotations

import importlib
from typing import Any


def load(module: str, extra: str, what: str) -> Any:
    """A module of an optional package; ``what`` is what it is needed for."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        message = f"{what} needs {package}, which is not installed: pip install 'xmore[{extra}]'"
        raise ImportError(message, name=package) from error
