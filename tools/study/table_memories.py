"""Other memories: shuffled captions, parts of Flickr8k, one caption an image, the stamps; all images."""
import hashlib

import baselines
import tasks
from figures import ece, head, percents, right, row
from pinned import np

whole = tasks.flickr8k()
rng = np.random.RandomState(5)
images = len(whole.first)
memories = {"Flickr8k": whole, "captions shuffled": whole.with_captions_of(rng.permutation(len(whole.images)))}
for name, share in (("half of the images", .5), ("10 %", .1), ("1 %", .01)):
    kept = set(rng.permutation(images)[:int(images * share)])
    memories[name] = whole.part([i for i, image in enumerate(whole.image) if image in kept])
memories["one caption an image"] = whole.part(whole.first)
digests = {name: hashlib.sha256(f"0/{name.rsplit('/', 1)[-1]}".encode()).digest() for name in set(whole.names)}
held_out = set(sorted(digests, key=digests.get)[:1000])     # what lite's heads were not trained on: crates/xmore-clip/models/lite/README.md
memories["lite's 1,000 held-out photos"] = whole.part([i for i, name in enumerate(whole.names) if name in held_out])
trained = sorted(set(whole.names) - held_out)
memories["all 278 stamps"] = tasks.stamp_memory()

methods = (baselines.zero_shot, baselines.xmore, tasks.calibrated)
head("memory", "images, labels", "round trip", "zero-shot", "xmore", "xmore-kernel", "ECE zero-shot", "ECE xmore", "ECE xmore-kernel")
for name, memory in memories.items():
    size = len(memory.images)
    looked_at = 128 if size >= 2000 else max(16, min(128, size // 10))
    asked = [(n, None) for n in tasks.MAIN] + [("imagenette160", "in200_0"), ("labeled100", None)] + [("stamps", None)] * (size != 278)
    for images, labels in asked:
        task = tasks.Task(images, memory, labels, looked_at)
        found = [m(task) for m in methods]
        row(name, task.set, f"{task.state.round_trip:.2f}", *percents([100 * right(p, task.y).mean() for p in found]), *percents([ece(p, task.y) for p in found], 3))

each = []
for seed in range(5):
    task = tasks.demo_split(seed)
    task.memory = task.memory.with_captions_of(np.random.RandomState(9).permutation(len(task.memory.images)))
    each.append([*(100 * right(m(task), task.y).mean() for m in methods), task.state.round_trip])
*shares, trip = np.mean(each, 0)
row("demo's memories, captions shuffled", "demo", f"{trip:.2f}", *percents(shares), "", "", "")

print("\n## 1,000 photos as memory: those lite's heads were not trained on, and 5 draws of those they were")
head("images", "zero-shot", "held out: round trip", "xmore", "xmore-kernel", "trained on: round trip", "xmore", "xmore-kernel: mean", "least", "most")


def thousand(kept, name):
    task = tasks.Task(name, whole.part([i for i, n in enumerate(whole.names) if n in kept]))
    figures = [100 * right(m(task), task.y).mean() for m in methods]
    return [task.state.round_trip, *figures]


for name in (*tasks.MAIN, "stamps"):
    out = thousand(held_out, name)
    draws = np.array([thousand(set(np.random.RandomState(seed).permutation(trained)[:1000]), name) for seed in range(5)])
    trip, zero_shot, xmore, ours = draws.mean(0)
    row(name, f"{zero_shot:.1f}", f"{out[0]:.2f}", *percents(out[2:]), f"{trip:.2f}", *percents([xmore, ours, draws[:, 3].min(), draws[:, 3].max()]))
