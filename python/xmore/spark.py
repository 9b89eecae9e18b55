"""Spark: embeddings in data frames, and memories that executors build together.

    import xmore.spark

    frame.mapInPandas(xmore.spark.Embedder(image="path"), schema="path string, image_embedding array<float>")

    xmore.spark.build_memory(spark, "shards/{00000..41454}.tar", "memory", model="ViT-B-32,openai", parts=400)

``pip install pyspark pandas pyarrow`` gets what ``mapInPandas`` needs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

from xmore._divided import DividedBuild
from xmore._embedder import Embedder

__all__ = ["Embedder", "build_memory"]


def build_memory(
    spark: Any,
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    model: str = "lite",
    parts: int = 8,
    threads: int = 1,
    flags: Sequence[str] = (),
    keep_parts: bool = False,
) -> str:
    """Builds the memory that ``xmore memory build SOURCES -o PATH`` builds, byte for byte, by Spark's executors.

    Returns its folder.

    As ``xmore.ray.build_memory``; a part whose executor is lost is started again as often as ``spark.task.maxFailures`` says. ``threads`` is
    best what ``spark.task.cpus`` is. Parts are merged by the driver.
    """
    build = DividedBuild.of(sources, path, model, parts, flags, threads)
    spark.sparkContext.parallelize(range(1, parts + 1), parts).map(build.build).collect()
    memory = build.merge()
    if not keep_parts:
        shutil.rmtree(build.folder)
    return memory
