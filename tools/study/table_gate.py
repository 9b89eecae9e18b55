"""The gate: tasks whose labels the memory does not know or half knows, label sets' round trips, and the number of names."""
import random

import baselines
import method
import tasks
from figures import accuracy, collect, difference, ece, head, intervals, percents, row
from pinned import np

memory = tasks.flickr8k()
print("## tasks, Flickr8k as memory, all images")
head("images, labels", "C", "round trip", "mean gate", "zero-shot", "xmore", "xmore-kernel", "− zero-shot", "ECE zero-shot", "ECE xmore", "ECE xmore-kernel")
names = [*(f"in200_{i}" for i in range(4)), *(f"in100_{i}" for i in range(3)), "in50_0", "in50_1", "in1000"]
for name, labels in [*(("imagenette160", n) for n in names), ("cifar10", "cifar110"), ("flowers5", "flowers5+"), ("labeled100", None), ("stamps", None)]:
    task = tasks.Task(name, memory, labels)
    found = [collect([task], m) for m in (baselines.zero_shot, baselines.xmore, tasks.calibrated)]
    gain = difference(found[2], found[0])
    gain.pop("mean")
    row(task.set, len(task.labels), f"{task.state.round_trip:.3f}", f"{task.state.last['g'].mean():.2f}",
        *percents([accuracy(f)[task.set] for f in found]), *intervals(gain), *percents([ece(*f[task.set][:2]) for f in found], 3))

print("\n## round trips of label sets; the method uses the first column")
split = tasks.demo_split(0).memory
shuffled = memory.with_captions_of(np.random.RandomState(5).permutation(len(memory.images)))
head("labels", "C", "Flickr8k", "Flickr8k, κ = s", "demo's memory (split 0)", "Flickr8k, captions shuffled")
softer = method.Constants(kappa_trip=1)
trip = lambda labels, memory, constants=method.Constants(): method.round_trips(labels, memory, tasks.SCALE, constants).mean()
for name in (*tasks.MAIN, "in50_0", "in50_1", "in200_0", "flowers", "pets", "caltech101", "eurosat", "gtsrb", "country211", "fer2013", "cifar110", "dog or person", "actions"):
    labels = tasks.prompts(name)
    row(name, len(labels), *percents([trip(labels, memory), trip(labels, memory, softer), trip(labels, split), trip(labels, shuffled)], 2))

print("\n## round trip of random ImageNet names, 8 draws each")
head("names", "least", "mean", "most")
labels = tasks.prompts("in1000")
for count in (20, 50, 100, 150, 200, 300, 500):
    each = [trip(labels[random.Random(100 + seed).sample(range(1000), count)], memory) for seed in range(8)]
    row(count, *percents([min(each), sum(each) / len(each), max(each)], 3))
