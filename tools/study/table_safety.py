"""Where the method has to do no harm: few labels, shuffled captions, one caption for all, and what remote indexes allow; all images.

    python3 table_safety.py INPUTS MODEL…
"""
import random
import sys

import baselines
import engine
import tasks
from figures import head, row
from pinned import np

SETS = ("imagenette160", "cifar10", "flowers5", "fashion-queries", "tiny200", "labeled100")
DRAWS = 2


def gain(task, p):
    zero_shot = baselines.zero_shot(task)
    return 100 * ((p.argmax(1) == task.y).mean() - (zero_shot.argmax(1) == task.y).mean())


def few(model, memory, count):
    """Random lists of `count` labels of each set."""
    for name in SETS:
        rng = random.Random(name)
        for _ in range(DRAWS):
            labels = rng.sample(model.lists[name], count) if count < len(model.lists[name]) else None
            if labels:
                key = "+".join(labels)
                model.lists[key] = labels
                task = tasks.Task(model, name, key, memory)
                if len(task.y) >= 20:
                    yield task


head("model", "memory", "labels", "tasks", "xmore", "xmore-kernel", "mean gate")
for name in sys.argv[2:]:
    model = tasks.Model(name)
    prompts = model.prompts

    def prompts_of(key):
        """Those of a drawn list are rows of its set's."""
        if "+" not in key or key in ("flowers5+",):
            return prompts(key)
        labels = model.lists[key]
        source = next(s for s in SETS if set(labels) <= set(model.lists[s]))
        return prompts(source)[[model.lists[source].index(label) for label in labels]]

    model.prompts = prompts_of
    flickr8k = model.flickr8k()
    one = tasks.Memory(f"{flickr8k.name} one caption", flickr8k.images, np.repeat(flickr8k.captions[:1], len(flickr8k.images), 0), flickr8k.texts[:1] * len(flickr8k.images), flickr8k.names)
    memories = [flickr8k, model.memory("fashion-pairs"), model.memory("stamps"), flickr8k.shuffled(), model.memory("fashion-pairs").shuffled(), model.memory("stamps").shuffled()]
    for memory in memories:
        for count in (2, 3, 4, 7):
            found = [(gain(task, baselines.xmore(task)), gain(task, (state := task.state()).answer(task.queries)), state.gate.mean()) for task in few(model, memory, count)]
            means = np.mean(found, 0)
            row(name, memory.name, count, len(found), f"{means[0]:+.2f}", f"{means[1]:+.2f}", f"{means[2]:.2f}")
    for task in [*tasks.shuffled_tasks(model), tasks.Task(model, "cifar10", None, one)]:
        state = task.state()
        ours = gain(task, state.answer(task.queries))
        row(name, task.memory.name, task.list, 1, f"{gain(task, baselines.xmore(task)):+.2f}", f"{ours:+.2f}", f"{state.gate.mean():.2f}")

print()
head("model", "set", "xmore", "xmore-kernel with a remote index of the same pairs", "xmore-kernel with the memory here")
for name in sys.argv[2:]:
    model = tasks.Model(name)
    for group, each in tasks.all_tasks(model).items():
        found = [(gain(task, baselines.xmore(task)), gain(task, engine.RemoteState(task.labels, task.memory, task.scale).answer(task.queries)), gain(task, task.state().answer(task.queries))) for task in each]
        row(name, f"{group}, mean of {len(each)}", *(f"{value:+.2f}" for value in np.mean(found, 0)))
