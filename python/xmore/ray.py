"""Ray: embeddings in Ray Data, and memories that the workers of a cluster build together.

    import ray, xmore.ray

    dataset = ray.data.read_images("photos", include_paths=True)
    dataset.map_batches(xmore.ray.Embedder, fn_constructor_kwargs={"image": "path"}, concurrency=8)

    xmore.ray.build_memory("shards/{00000..41454}.tar", "memory", model="ViT-B-32,openai", parts=400)

``ray`` is imported when a memory is built; `pip install ray` gets it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence

from xmore._divided import DividedBuild, PartIsBusy
from xmore._embedder import Embedder

__all__ = ["Embedder", "build_memory"]


def build_memory(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    model: str = "lite",
    parts: int = 8,
    cpus_per_part: int = 1,
    flags: Sequence[str] = (),
    keep_parts: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Builds the memory that ``xmore memory build SOURCES -o PATH`` builds, byte for byte, on a Ray cluster.

    Returns its folder.

    Each of ``parts`` tasks builds one part in ``PATH.parts``; one whose worker dies is started again, on any node with free processors, and
    goes on at its last checkpoint. When all are finished a task merges them. The same call goes on where an earlier one stopped. Sources
    and ``path`` are in storage that all nodes see under the same names, and all nodes have this package and the model.

    Args:
        sources: folders, tables, tars, as ``xmore memory build`` takes them, or one of them.
        path: folder of the new memory.
        model: the name of a model, as for ``xmore.Model``.
        parts: number of parts.
        cpus_per_part: processors, and threads, of a part.
        flags: further flags of ``xmore memory build``, such as ``["--max-skipped", "20%"]``.
        keep_parts: whether the parts stay when they are merged.
        progress: called with the number of parts that are finished, and of all.

    Raises:
        xmore.XmoreError: with what the command says, if a part cannot be built.
    """
    import ray  # type: ignore[import-not-found, unused-ignore]

    build = DividedBuild.of(sources, path, model, parts, flags, cpus_per_part)
    # A worker that dies is no failure of the task, however often that happens; nor is one that is slow to die.
    retried = {"max_retries": -1, "retry_exceptions": [PartIsBusy]}
    build_part = ray.remote(num_cpus=cpus_per_part, **retried)(DividedBuild.build)
    merge = ray.remote(num_cpus=1, **retried)(DividedBuild.merge)
    waiting = [build_part.remote(build, number) for number in range(1, parts + 1)]
    try:
        while waiting:
            finished, waiting = ray.wait(waiting)
            ray.get(finished)
            if progress is not None:
                progress(parts - len(waiting), parts)
        ray.get(merge.remote(build))
    finally:
        for task in waiting:
            ray.cancel(task, force=True)
    if not keep_parts:
        shutil.rmtree(build.folder)
    return build.path
