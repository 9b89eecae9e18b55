"""`xmore.spark` on a Spark cluster of two executors with processes of their own. Skipped, visibly, where pyspark or Java is not installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    "pyspark", reason="pyspark is not installed: pip install -r python/tests/requirements-engines.txt"
)
if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
    pytest.skip("Java is not installed", allow_module_level=True)

import divided
from pyspark.sql import SparkSession

import xmore.spark

# Spark's own warnings are not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def spark():
    """Two executors of one processor and 512 MiB each."""
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    os.environ.update(PYTHONPATH=here, PYSPARK_PYTHON=sys.executable)
    builder = SparkSession.builder.master("local-cluster[2,1,512]").config("spark.executor.memory", "512m")
    builder = builder.config("spark.ui.enabled", "false").config("spark.executorEnv.PYTHONPATH", here)
    session = builder.config("spark.task.maxFailures", "8").getOrCreate()
    yield session
    session.stop()


def test_rows_of_a_frame_are_embedded_as_by_the_model(spark, tmp_path):
    divided.pairs(tmp_path, 40)
    paths = [str(path) for path in sorted((tmp_path / "photos").glob("*.png"))]
    frame = spark.createDataFrame([(path,) for path in paths], "path string")
    embedder = xmore.spark.Embedder(divided.MODEL, image="path")
    rows = frame.mapInPandas(embedder, schema="path string, image_embedding array<float>").collect()
    images = xmore.Model(divided.MODEL).encode_image(paths, on_error="nan")
    found = {row.path: np.array(row.image_embedding, dtype=np.float32) for row in rows}
    for path, image in zip(paths, images, strict=True):
        np.testing.assert_array_equal(found[path], image)


def test_a_memory_built_by_executors_of_which_a_worker_is_killed_has_the_bytes_of_one_build(spark, tmp_path):
    table = divided.pairs(tmp_path, 300)
    whole, merged = tmp_path / "whole", tmp_path / "merged"
    divided.build(table, whole)
    killer = subprocess.Popen(
        [sys.executable, divided.__file__, str(merged)], stdout=subprocess.PIPE, text=True
    )
    try:
        path = xmore.spark.build_memory(
            spark, table, merged, model=divided.MODEL, parts=5, flags=divided.FLAGS
        )
    finally:
        killer.send_signal(signal.SIGTERM)
        killed = killer.communicate()[0].split()
    assert killed, "no worker was caught at its work"
    assert path == str(merged)
    divided.assert_same_files(merged, whole)
