"""All tasks of all models on one half: differences to zero-shot by group, the worst, calibration, and the bars.

    python3 table_report.py INPUTS report|design MODEL…
"""
import sys

import baselines
import method
import tasks
from figures import collect, difference, ece, head, row
from pinned import np

HALF = {"design": 0, "report": 1}[sys.argv[2]]
METHODS = {
    "zero-shot": lambda task: baselines.zero_shot(task),
    "xmore": lambda task: baselines.xmore(task),
    "before": lambda task: task.state(method.BEFORE).answer(task.queries),
    "xmore-kernel": lambda task: task.state().answer(task.queries),
}


def measure(groups):
    """{method: {set: (p, y, files)}} and the group of each set."""
    found, group_of = {name: {} for name in METHODS}, {}
    for group, each in groups.items():
        for name, answer in METHODS.items():
            found[name] |= collect(each, answer, HALF)
        group_of |= {task.set: group for task in each}
    return found, group_of


everything = {name: {} for name in METHODS}
groups = {}
head("model", "set", "images", "zero-shot", "xmore", "before", "xmore-kernel", "ECE, zero-shot / xmore / xmore-kernel")
for name in sys.argv[3:]:
    found, group_of = measure(tasks.all_tasks(tasks.Model(name)))
    for each in found["zero-shot"]:
        p = {m: found[m][each] for m in METHODS}
        right = {m: 100 * (v[0].argmax(1) == v[1]).mean() for m, v in p.items()}
        eces = " / ".join(f"{100 * ece(p[m][0], p[m][1]):.1f}" for m in ("zero-shot", "xmore", "xmore-kernel"))
        row(name, each, len(p["xmore"][1]), f"{right['zero-shot']:.1f}", *(f"{right[m] - right['zero-shot']:+.1f}" for m in ("xmore", "before", "xmore-kernel")), eces)
        groups[f"{name}: {each}"] = group_of[each]
        for m in METHODS:
            everything[m][f"{name}: {each}"] = p[m]

print()
head("group", "tasks", "xmore", "before", "xmore-kernel", "xmore-kernel − xmore", "worst of xmore-kernel")
unknown = lambda each: each.split(": ")[1].replace(" unseen", "") in tasks.UNKNOWN
selections = {group: [s for s in groups if groups[s] == group] for group in dict.fromkeys(groups.values())}
selections |= {"labels the memory does not know": [s for s in groups if unknown(s)], "all": list(groups)}
for group, chosen in selections.items():
    part = {m: {s: everything[m][s] for s in chosen} for m in METHODS}
    show = lambda a, b: "{:+.2f} [{:+.2f}, {:+.2f}]".format(*difference(part[a], part[b])["mean"])
    each = difference(part["xmore-kernel"], part["zero-shot"])
    worst = min((v[0], s) for s, v in each.items() if s != "mean")
    row(group, len(chosen), *(show(m, "zero-shot") for m in ("xmore", "before", "xmore-kernel")), show("xmore-kernel", "xmore"), f"{worst[0]:+.1f} {worst[1]}")
mean_ece = {m: 100 * np.mean([ece(p, y) for p, y, _ in everything[m].values()]) for m in METHODS}
print("\nmean ECE %: " + ", ".join(f"{m} {value:.1f}" for m, value in mean_ece.items()))
below = difference({s: everything["xmore-kernel"][s] for s in selections["knows"]}, {s: everything["xmore"][s] for s in selections["knows"]})
print("where the memory knows the subject, least difference to xmore: {:+.1f} {}".format(*min((v[0], s) for s, v in below.items() if s != "mean")))
