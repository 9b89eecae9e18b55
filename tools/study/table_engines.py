"""Where only 128 neighbors a query are known: accuracy, differences, calibration, label sets."""
import baselines
import engine
import tasks
from figures import accuracy, collect, difference, ece, head, intervals, percents, right, row
from pinned import np

memory = tasks.flickr8k()
four = tasks.four(memory)


def asked(task):
    task.state = engine.Engine(task.labels, task.memory, task.scale)
    return task.state.answer(task.queries)


answers = {id(task): (baselines.zero_shot(task), baselines.xmore(task), asked(task)) for task in four}
head("images", "", "imagenette160", "cifar10", "flowers5", "demo", "mean")
for half, name in ((0, "design half"), (1, "report half"), (None, "all")):
    zero_shot, xmore, ours = [collect(four, lambda task: answers[id(task)][i], half) for i in range(3)]
    each = list(accuracy(ours).values())
    row(name, "top-1 %", *percents(each), f"{np.mean(each):.2f}")
    row(name, "− zero-shot", *intervals(difference(ours, zero_shot)))
    row(name, "− xmore", *intervals(difference(ours, xmore)))
    row(name, "ECE", *percents([ece(p, y) for p, y, _ in ours.values()], 3), "")

print()
head("images, labels", "round trip", "zero-shot", "engine")
for images, labels in [*(("imagenette160", n) for n in ("in200_0", "in200_1", "in200_2", "in200_3", "in50_0", "in50_1", "in1000")), ("labeled100", None), ("stamps", None), ("cifar10", "cifar110"), ("flowers5", "flowers5+")]:
    task = tasks.Task(images, memory, labels)
    p = asked(task)
    row(task.set, f"{task.state.round_trip:.2f}", *percents([100 * right(q, task.y).mean() for q in (baselines.zero_shot(task), p)]))
