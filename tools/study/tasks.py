"""Reads the folders that inputs.py made, one a model: memories, label lists, and tasks (query images under labels, with a memory).

The folder that holds them is the first argument of every table, or STUDY_INPUTS. What does not depend on the method is kept in its `kept/`.
"""
import functools
import hashlib
import json
import os
import sys
from pathlib import Path

import pyarrow.parquet

import baselines
import mentions
import method
from pinned import np

INPUTS = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ["STUDY_INPUTS"])
# Sets under Flickr8k's captions: (images, further list of labels).
WITH_FLICKR8K = [
    *((name, None) for name in ("imagenette160", "imagenette-more", "cifar10", "cifar10-more", "flowers5", "labeled100", "stamps", "tiny200", "fashion-queries")),
    ("tiny200", "tiny50"), ("fashion-queries", "fashion20"), ("imagenette160", "in200_0"), ("imagenette160", "in100_0"), ("imagenette160", "in50_0"),
    ("imagenette160", "heads30"), ("imagenette160", "heads50"), ("imagenette-more", "in50_1"), ("cifar10", "cifar110"), ("flowers5", "flowers5+"),
]
# Memories that know the subject of the images.
KNOWING = [("fashion-queries", None, "fashion-pairs"), ("fashion-queries", "fashion20", "fashion-pairs"), ("tiny200", None, "tiny200-pairs"), ("tiny200", "tiny50", "tiny200-pairs")]
# Memories of another subject.
OTHER = [("imagenette160", None, "tiny200-pairs"), ("cifar10", None, "tiny200-pairs"), ("stamps", None, "tiny200-pairs"), ("labeled100", None, "tiny200-pairs"),
         ("cifar10", None, "fashion-pairs"), ("imagenette-more", None, "stamps"), ("cifar10", None, "stamps")]
# Lists of labels of which Flickr8k knows nothing to speak of.
UNKNOWN = ("flickr8k/imagenette160, in200_0", "flickr8k/flowers5, flowers5+", "flickr8k/fashion-queries", "fashion-pairs/cifar10")
DEMO_SPLITS = range(5)


def kept(name, make):
    """What `make` gives, a list of arrays, from the disk if it was made before."""
    path = INPUTS / "kept" / (hashlib.sha1(name.encode()).hexdigest() + ".npz")
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        np.savez(path.with_suffix(".tmp.npz"), *make())
        path.with_suffix(".tmp.npz").rename(path)
    return list(np.load(path).values())


class Memory(method.Memory):
    """Pairs with their images' names; `name` says which pairs."""

    def __init__(self, name, images, captions, texts, names):
        self.name, self.names = name, list(names)
        numbers, equal = {}, {}
        super().__init__(images, captions, list(texts), np.array([numbers.setdefault(n, len(numbers)) for n in self.names]))
        self.text = np.array([equal.setdefault(t, len(equal)) for t in self.texts])

    def part(self, name, rows):
        return Memory(f"{self.name}{name}", self.images[rows], self.captions[rows], [self.texts[i] for i in rows], [self.names[i] for i in rows])

    def with_captions_of(self, name, order):
        return Memory(f"{self.name}{name}", self.images, self.captions[order], [self.texts[i] for i in order], self.names)

    def shuffled(self):
        return self.with_captions_of(" shuffled", np.random.RandomState(9).permutation(len(self.images)))


class Model:
    """One model's folder. `trained_on`: which of Flickr8k's photos the heads have seen: "most" or those of an "even" hash."""

    def __init__(self, name):
        self.name, self.folder = name, INPUTS / name
        sets = json.loads((self.folder / "sets.json").read_text(encoding="utf-8"))
        self.scale, self.lists, self.files = sets["scale"], sets["labels"], sets["files"]
        self.honest = name.endswith("-half")

    def rows(self, name):
        return np.load(self.folder / f"{name}.npy").astype("f4")

    def prompts(self, name):
        """Unit rows of a label list's prompts."""
        start = 0
        for each, labels in self.lists.items():
            if each == name:
                return method.unit(self.rows("prompts")[start:start + len(labels)]).astype("f4")
            start += len(labels)
        raise KeyError(name)

    @functools.cache
    def memory(self, name):
        if name == "stamps":
            lines = (self.folder / "stamp_captions.txt").read_text(encoding="utf-8").splitlines()
            return Memory("stamps", self.rows("stamps"), self.rows("stamp_captions"), lines, [file for file, _ in self.files["stamps"]])
        table = pyarrow.parquet.read_table(self.folder / name / "metadata/metadata_0000.parquet").to_pydict()
        matrix = lambda what: np.load(self.folder / f"{name}/{what}_emb/{what}_emb_0000.npy").astype("f4")
        return Memory(name, matrix("img"), matrix("text"), table["caption"], table["image_path"])

    @functools.cache
    def flickr8k(self):
        """Of a model whose heads have seen one half of the photos the other half, else all."""
        memory = self.memory("flickr8k")
        unseen = {n for n in set(memory.names) if digest(n.rsplit("/", 1)[-1])[0] & 1}
        return memory.part(" unseen", [i for i, n in enumerate(memory.names) if n in unseen]) if self.honest else memory

    @functools.cache
    def held_out(self):
        """The 1,000 photos that the heads of `lite` and `lite2` have not seen."""
        memory = self.memory("flickr8k")
        held = set(sorted(set(memory.names), key=lambda n: digest("0/" + n.rsplit("/", 1)[-1]))[:1000])
        return memory.part(" held out", [i for i, n in enumerate(memory.names) if n in held])


def digest(text):
    return hashlib.sha256(text.encode()).digest()


REPORT_STAMPS = set((Path(__file__).parent / "stamps_report_half.txt").read_text(encoding="utf-8").splitlines())


def half(name, file):
    """1 (report) or 0 (design), by the file name's hash; the stamps' were drawn by that of their full path then, so they are listed."""
    return int(file in REPORT_STAMPS) if name == "stamps" else digest(file)[0] & 1


class Task:
    """Query images of a set under a label list, with a memory; `rows` are some of the images."""

    def __init__(self, model, name, labels, memory, rows=None, looked_at=None):
        self.model, self.memory, self.scale = model, memory, model.scale
        self.names, files = model.lists[labels or name], model.files[name]
        rows = [i for i in (range(len(files)) if rows is None else rows) if files[i][1] in self.names]
        self.list, self.labels, self.queries = labels or name, model.prompts(labels or name), model.rows(name)[rows]
        self.files = [files[i][0] for i in rows]
        self.y = np.array([self.names.index(files[i][1]) for i in rows])
        self.half = np.array([half(name, file) for file in self.files])
        self.set, self.name = f"{memory.name}/{name}" + (f", {labels}" if labels else ""), f"{model.name}/{name}/{hashlib.sha1(repr(rows).encode()).hexdigest()}"
        # A small memory's nearest 128 pairs are no longer similar images.
        self.looked_at = looked_at or (128 if len(memory.images) >= 2000 else max(16, min(128, len(memory.images) // 10)))

    def near(self, k=16):
        """The paper's neighbors, at least k."""
        n = max(self.looked_at, k)
        rows = kept(f"near {n} {self.name} {self.memory.name}", lambda: [np.array(baselines.neighbors(self.queries, self.memory, n))])
        return rows[0]

    def state(self, constants=method.Constants()):
        """xmore-kernel's."""
        key = f"{self.model.name}/{self.memory.name}"

        def recall(points, memory, *options):
            digest = hashlib.sha1(points.tobytes()).hexdigest()
            return kept(f"recall {key} {digest} {[hashlib.sha1(o.tobytes()).hexdigest() if isinstance(o, np.ndarray) else o for o in options]}",
                        lambda: method.recall(points, memory, *options))

        def naming(names, memory):
            flat = lambda sets: (np.array([len(s) for s in sets]), np.array([i for s in sets for i in sorted(s)], int))
            arrays = kept(f"names {memory.name} {names}", lambda: [a for sets in mentions.naming(names, memory.texts, memory.image) for a in flat(sets)])
            split = lambda counts, items: [set(part.tolist()) for part in np.split(items, np.cumsum(counts)[:-1])]
            return split(*arrays[:2]), split(*arrays[2:])

        return method.State(self.names, self.labels, self.memory, self.scale, constants, recall, naming)


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


def demo_split(model, seed):
    """One split of the demo: three quarters of the stamps as memory, the rest as queries; 20 neighbors, a tenth."""
    memory = model.memory("stamps")
    rows, asked = split(len(memory.images), seed)
    task = Task(model, "stamps", None, memory.part(f" {seed}", rows), asked, looked_at=20)
    task.set = "demo"
    return task


def all_tasks(model):
    """{group: tasks} of a model. The demo's splits are one set."""
    flickr8k, stamps = model.flickr8k(), [demo_split(model, seed) for seed in DEMO_SPLITS]
    groups = {
        "Flickr8k": [Task(model, name, labels, flickr8k) for name, labels in WITH_FLICKR8K],
        "knows": [Task(model, name, labels, model.memory(memory)) for name, labels, memory in KNOWING] + stamps,
        "other": [Task(model, name, labels, model.memory(memory)) for name, labels, memory in OTHER],
    }
    if not model.honest:
        groups["Flickr8k, 1,000 unseen"] = [Task(model, name, None, model.held_out()) for name in ("imagenette160", "cifar10", "cifar10-more", "flowers5", "labeled100")]
    return groups


def shuffled_tasks(model):
    """Tasks whose memories have captions of other images."""
    asked = [("fashion-queries", "fashion-pairs"), ("tiny200", "tiny200-pairs")]
    tasks = [Task(model, name, None, model.memory(memory).shuffled()) for name, memory in asked]
    return tasks + [Task(model, name, None, model.flickr8k().shuffled()) for name in ("cifar10", "stamps", "imagenette160")]
