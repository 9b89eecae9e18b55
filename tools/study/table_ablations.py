"""What each constant is worth: accuracy on one half (second argument design or report, report if none), side sets on all images, ECE."""
import sys

import tasks
from figures import accuracy, collect, ece, head, percents, right, row
from pinned import np

HALF = {"design": 0, "report": 1}[sys.argv[2] if len(sys.argv) > 2 else "report"]
VARIANTS = {
    "as designed": {}, "A = 0": dict(A=0), "B = 0": dict(B=0), "A = B = .5": dict(A=.5, B=.5), "A = B = .7": dict(A=.7, B=.7),
    "μ = 0": dict(mu=0), "μ = .25": dict(mu=.25), "μ = .75": dict(mu=.75), "μ = 1": dict(mu=1), "κ = 1.5 s": dict(kappa=1.5), "κ = s / 1.5": dict(kappa=1 / 1.5),
    "N = 64": dict(near=64), "N = 128": dict(near=128), "N = 512": dict(near=512), "N = 4096": dict(near=4096),
    "R = 64": dict(references=64), "R = 1024": dict(references=1024),
    "gate always open": dict(closed=-2, open=-1), "gate ⅓ to ⅔": dict(open=2 / 3), "gate .25 to .75": dict(closed=.25, open=.75),
    "gate .4 to .5": dict(closed=.4), "gate .4 to .6": dict(closed=.4, open=.6), "gate ⅓ to 1": dict(open=1),
}
memory = tasks.flickr8k()
four = tasks.four(memory)
side = [tasks.Task("labeled100", memory), tasks.Task("imagenette160", memory, "in50_0"), tasks.Task("stamps", memory)]
head("variant", "imagenette160", "cifar10", "flowers5", "demo", "mean", *(task.set for task in side), "ECE of the four")
for name, constants in VARIANTS.items():
    found = collect(four, lambda task: tasks.calibrated(task, **constants), HALF)
    each = list(accuracy(found).values())
    beside = [100 * right(tasks.calibrated(task, **constants), task.y).mean() for task in side]
    row(name, *percents(each), f"{np.mean(each):.2f}", *percents(beside), " ".join(percents([ece(p, y) for p, y, _ in found.values()], 3)))
