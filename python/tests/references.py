"""What the real packages answer; see fixtures/make_references.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "fixtures"
FIXTURES = Path(__file__).parents[2] / "crates/xmore-clip/tests/fixtures"
REFERENCES: dict[str, Any] = json.loads((HERE / "references.json").read_text())
SIGLIP = FIXTURES / "towers/siglip_scores/transformers"
SIGLIP_OPEN_CLIP = FIXTURES / "towers/siglip_scores/open_clip"
CHINESE_CLIP = HERE / "chinese_clip"
IMAGES = [FIXTURES / "images" / name for name in REFERENCES["images"]]
LABELS: list[str] = REFERENCES["labels"]
