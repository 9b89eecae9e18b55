"""Reads the folder that inputs.py made: memories, label sets, and tasks (query images under labels, with a memory).

The folder is the first argument of every table, or STUDY_INPUTS.
"""
import hashlib
import json
import os
import sys
from pathlib import Path

import pyarrow.parquet

import baselines
import method
from pinned import np

INPUTS = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ["STUDY_INPUTS"])
LISTS = json.loads((INPUTS / "sets.json").read_text(encoding="utf-8"))
SCALE = 26.043432235717773      # exp(logit_scale) of lite
MAIN = ("imagenette160", "cifar10", "flowers5")


def rows(name):
    return np.load(INPUTS / f"{name}.npy").astype("f4")


class Memory(method.Memory):
    """Pairs with their captions' texts and their images' names."""

    def __init__(self, images, captions, texts, names):
        self.texts, self.names = list(texts), list(names)
        numbers, equal = {}, {}
        super().__init__(images, captions, np.array([numbers.setdefault(n, len(numbers)) for n in self.names]))
        self.text = np.array([equal.setdefault(t, len(equal)) for t in self.texts])

    def part(self, kept):
        return Memory(self.images[kept], self.captions[kept], [self.texts[i] for i in kept], [self.names[i] for i in kept])

    def with_captions_of(self, order):
        return Memory(self.images, self.captions[order], [self.texts[i] for i in order], self.names)

    @property
    def distinct(self):
        """Each image once."""
        return self.images[self.first]


def flickr8k():
    table = pyarrow.parquet.read_table(INPUTS / "flickr8k/metadata/metadata_0000.parquet").to_pydict()
    matrix = lambda what: np.load(INPUTS / f"flickr8k/{what}_emb/{what}_emb_0000.npy").astype("f4")
    return Memory(matrix("img"), matrix("text"), table["caption"], table["image_path"])


def stamp_memory():
    lines = (INPUTS / "stamp_captions.txt").read_text(encoding="utf-8").splitlines()
    return Memory(rows("stamps"), rows("stamp_captions"), lines, [file for file, _ in LISTS["files"]["stamps"]])


def prompts(name):
    """Unit rows of a label set's prompts."""
    start = 0
    for each, labels in LISTS["labels"].items():
        if each == name:
            return method.unit(rows("prompts")[start:start + len(labels)]).astype("f4")
        start += len(labels)
    raise KeyError(name)


REPORT_STAMPS = set((Path(__file__).parent / "stamps_report_half.txt").read_text(encoding="utf-8").splitlines())


def half(name, file):
    """1 (report) or 0 (design), by the file name's hash; the stamps' were drawn by that of their full path then, so they are listed."""
    return int(file in REPORT_STAMPS) if name == "stamps" else hashlib.sha256(file.encode()).digest()[0] & 1


class Task:
    """Query images of a dataset under a label set, with a memory. """

    def __init__(self, name, memory, labels=None, looked_at=128):
        self.set = name if labels is None else f"{name}, {labels}"
        names, files = LISTS["labels"][labels or name], LISTS["files"][name]
        self.memory, self.looked_at, self.scale = memory, looked_at, SCALE
        self.queries, self.labels = rows(name), prompts(labels or name)
        self.files = [file for file, _ in files]
        self.y = np.array([names.index(label) for _, label in files])
        self.half = np.array([half(name, file) for file in self.files])

    def near(self, k=16):
        """The paper's neighbors, at least k; found once."""
        n = max(self.looked_at, k)
        if getattr(self, "found", (0,))[0] != n:
            self.found = n, baselines.neighbors(self.queries, self.memory, n)
        return self.found[1]


def split(count, seed):
    """The demo's splits: (memory, queries). Fisher-Yates with SplitMix64."""
    mask, state, order = (1 << 64) - 1, seed, list(range(count))

    def below(bound):
        nonlocal state
        while True:
            state = (state + 0x9E3779B97F4A7C15) & mask
            z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
            z ^= z >> 31
            if z < mask - mask % bound:
                return z % bound

    for i in range(count - 1, 0, -1):
        j = below(i + 1)
        order[i], order[j] = order[j], order[i]
    queries = (count + 2) // 4
    return sorted(order[queries:]), sorted(order[:queries])


def demo_split(seed):
    """One split of the demo: three quarters of the stamps as memory, the rest as queries; 20 neighbors, a tenth."""
    memory = stamp_memory()
    kept, asked = split(len(memory.images), seed)
    task = Task("stamps", memory.part(kept), looked_at=20)
    task.set = "demo"
    task.queries, task.y, task.half = task.queries[asked], task.y[asked], task.half[asked]
    task.files = [task.files[i] for i in asked]
    return task


def four(memory):
    """The four sets of the main tables: three datasets with Flickr8k, and the demo's five splits."""
    return [Task(name, memory) for name in MAIN] + [demo_split(seed) for seed in range(5)]


def calibrated(task, **constants):
    """The method's distributions; the task keeps the state."""
    task.state = method.setup(task.labels, task.memory, task.scale, method.Constants(**constants))
    return task.state.answer(task.queries)
