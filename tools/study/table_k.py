"""xmore with K captions against xmore-kernel, which has no K; report half."""
import baselines
import tasks
from figures import accuracy, collect, difference, head, intervals, percents, row
from pinned import np

four = tasks.four(tasks.flickr8k())
answers = {id(task): tasks.calibrated(task) for task in four}
ours = collect(four, lambda task: answers[id(task)], 1)
head("method", *ours, "mean", *(f"xmore-kernel − it: {name}" for name in [*ours, "mean"]))
for k in (1, 2, 4, 8, 16, 32, 64):
    found = collect(four, lambda task: baselines.xmore(task, k), 1)
    each = list(accuracy(found).values())
    row(f"xmore, K = {k}", *percents(each), f"{np.mean(each):.2f}", *intervals(difference(ours, found)))
each = list(accuracy(ours).values())
row("xmore-kernel", *percents(each), f"{np.mean(each):.2f}")
