"""A memory built by all machines of a Ray cluster.

    ray start --head                      # on one machine; on the others: ray start --address=HEAD:6379
    python examples/ray_memory.py '/data/laion400m/{00000..41454}.tar' /shared/memory --model ViT-B-32,openai --parts 4000 --cpus-per-part 8

The tars, the memory's folder and the model are in storage that all machines see under the same names. Run again, it goes on where it stopped.
"""

import argparse

import ray

import xmore.ray

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("sources", nargs="+", help="folders, tables, tars; braces and globs are expanded")
parser.add_argument("memory", help="folder of the new memory")
parser.add_argument("--model", default="lite")
parser.add_argument(
    "--parts",
    type=int,
    default=8,
    help="several for each machine: what a lost machine costs, and how evenly they end",
)
parser.add_argument("--cpus-per-part", type=int, default=2)
parser.add_argument("--max-skipped", default="10%", help="most images that may fail in a part")
arguments = parser.parse_args()

ray.init(address="auto")
memory = xmore.ray.build_memory(
    arguments.sources,
    arguments.memory,
    model=arguments.model,
    parts=arguments.parts,
    cpus_per_part=arguments.cpus_per_part,
    flags=["--max-skipped", arguments.max_skipped],
    progress=lambda done, of: print(f"{done} of {of} parts", flush=True),
)
print(memory)
