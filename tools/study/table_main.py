"""Accuracy, calibration, and paired differences: design half, report half, all images; the first setting; more splits of the demo."""
import baselines
import tasks
from figures import accuracy, brier, collect, difference, ece, head, intervals, nll, percents, right, row
from pinned import np

FIRST = dict(A=0.4, B=0.4, open=2 / 3)      # the setting that was kept first

four = tasks.four(tasks.flickr8k())
answers = {}
for task in four:
    answers[id(task)] = {
        "zero-shot": baselines.zero_shot(task), "xmore": baselines.xmore(task),
        "first setting": tasks.calibrated(task, **FIRST), "xmore-kernel": tasks.calibrated(task),
    }
methods = list(answers[id(four[0])])
for half, name in ((0, "design half"), (1, "report half"), (None, "all images")):
    found = {m: collect(four, lambda task: answers[id(task)][m], half) for m in methods}
    print(f"\n## {name}")
    head("", *found["xmore"], "mean")
    for m in methods:
        each = list(accuracy(found[m]).values())
        row(m, *percents(each), f"{np.mean(each):.2f}")
    for a, b in (("xmore", "zero-shot"), ("first setting", "zero-shot"), ("first setting", "xmore"), ("xmore-kernel", "zero-shot"), ("xmore-kernel", "xmore")):
        row(f"{a} − {b}", *intervals(difference(found[a], found[b])))
    for figure, of in (("ECE", ece), ("NLL", nll), ("Brier", brier)):
        for m in methods:
            row(f"{figure} {m}", *percents([of(p, y) for p, y, _ in found[m].values()], 4), "")

print("\n## set-up")
head("set", "round trip", "mean gate", "λ_e", "λ_u", "usual nearest")
seeds = iter(range(5))
for task in four:
    s = task.state
    row(f"demo, split {next(seeds)}" if task.set == "demo" else task.set, *percents([s.round_trip, s.last["g"].mean(), s.lambda_e, s.lambda_u, s.near], 3))

print("\n## demo, splits 5 to 24")
each = []
for seed in range(5, 25):
    task = tasks.demo_split(seed)
    each.append([100 * right(p, task.y).mean() for p in (baselines.zero_shot(task), baselines.xmore(task), tasks.calibrated(task))])
each = np.array(each)
gain = each[:, 2] - each[:, 0]
head("zero-shot", "xmore", "xmore-kernel", "sd of gains", "worst split's gain")
row(*percents([*each.mean(0), gain.std(ddof=1), gain.min()]))
