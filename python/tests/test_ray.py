"""`xmore.ray` on a real cluster of two nodes, of which a worker is killed at its work. Skipped, visibly, where Ray is not installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ray = pytest.importorskip(
    "ray", reason="ray is not installed: pip install -r python/tests/requirements-engines.txt"
)

import divided  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

import xmore.ray  # noqa: E402

# Ray's own warnings are not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with two processors each, which this process is connected to."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.add_node(num_cpus=2)
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ray.init(address=cluster.address, runtime_env={"env_vars": {"PYTHONPATH": here}}, log_to_driver=False)
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_rows_of_a_dataset_are_embedded_as_by_the_model(cluster, tmp_path):
    table = divided.pairs(tmp_path, 60)
    model = xmore.Model(divided.MODEL)
    paths = [str(path) for path in sorted((tmp_path / "photos").glob("*.png"))]
    dataset = ray.data.from_items([{"path": path, "caption": f"picture {i}"} for i, path in enumerate(paths)])
    embedder = {"model": divided.MODEL, "image": "path", "text": "caption"}
    rows = dataset.map_batches(
        xmore.ray.Embedder,
        fn_constructor_kwargs=embedder,
        compute=ray.data.ActorPoolStrategy(size=2),
        batch_size=16,
    ).take_all()
    assert table.exists() and len(rows) == len(paths)
    rows = {row["path"]: row for row in rows}
    images = model.encode_image(paths, on_error="nan")
    texts = model.encode_text([f"picture {i}" for i in range(len(paths))])
    assert np.isnan(images).any(axis=1).sum() == divided.broken(60)
    for path, image, text in zip(paths, images, texts, strict=True):
        np.testing.assert_array_equal(rows[path]["image_embedding"], image)
        np.testing.assert_array_equal(rows[path]["text_embedding"], text)


def test_a_memory_built_by_workers_of_which_one_is_killed_has_the_bytes_of_one_build(cluster, tmp_path):
    table = divided.pairs(tmp_path, 600)
    whole, merged = tmp_path / "whole", tmp_path / "merged"
    divided.build(table, whole)
    # The second process kills workers as long as the first one builds.
    killer = subprocess.Popen(
        [sys.executable, divided.__file__, str(merged)], stdout=subprocess.PIPE, text=True
    )
    seen = []
    try:
        path = xmore.ray.build_memory(
            table,
            merged,
            model=divided.MODEL,
            parts=6,
            flags=divided.FLAGS,
            progress=lambda done, of: seen.append((done, of)),
        )
    finally:
        killer.send_signal(signal.SIGTERM)
        killed = killer.communicate()[0].split()
    assert killed, "no worker was caught at its work"
    assert path == str(merged) and seen[-1] == (6, 6)
    divided.assert_same_files(merged, whole)
    assert not Path(f"{merged}.parts").exists()
    # Done, it is done.
    again = xmore.ray.build_memory(table, merged, model=divided.MODEL, parts=6, flags=divided.FLAGS)
    assert again == path
    divided.assert_same_files(merged, whole)


def test_what_the_command_says_is_raised(cluster, tmp_path):
    start = time.monotonic()
    with pytest.raises(xmore.XmoreError, match="none.csv"):
        xmore.ray.build_memory(tmp_path / "none.csv", tmp_path / "m", model=divided.MODEL, parts=2)
    assert time.monotonic() - start < 120
    with pytest.raises(ValueError, match="parts"):
        xmore.ray.build_memory(tmp_path, tmp_path / "m", parts=0)
