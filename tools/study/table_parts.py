"""The method with parts left out or constants changed: means of the differences to zero-shot by group, and the worst set.

    python3 table_parts.py INPUTS design|report MODEL…
"""
import sys
from dataclasses import replace

import baselines
import tasks
from figures import collect, difference, head, row
from method import BEFORE, Constants

HALF = {"design": 0, "report": 1}[sys.argv[2]]
STANDARD = Constants()
# Up to the line as designed each adds one part.
BARE = replace(STANDARD, caption_trip=None, far=None, close=None)
VARIANTS = {
    "label round trip alone": replace(BEFORE, paired=STANDARD.paired),
    "+ names": replace(BARE, prototypes=0, head=False),
    "+ head rule": replace(BARE, prototypes=0),
    "+ plain prototypes": replace(BARE, whiten=False),
    "+ prototypes under the covariance": BARE,
    "+ caption round trip": replace(STANDARD, far=None, close=None),
    "**as designed** (+ nearness)": STANDARD,
    "without names": replace(STANDARD, names=False),
    "prototypes' weight by the support itself": replace(STANDARD, power=1),
    "A = B = .4": replace(STANDARD, A=0.4, B=0.4),
    "gate always open": replace(STANDARD, open=True),
}

groups = {}
for name in sys.argv[3:]:
    for group, each in tasks.all_tasks(tasks.Model(name)).items():
        groups.setdefault(group, []).append(each)
zero_shot = {group: [collect(each, baselines.zero_shot, HALF) for each in models] for group, models in groups.items()}
head("variant", *groups, "all", "worst set")
for name, constants in VARIANTS.items():
    means, every = [], []
    for group, models in groups.items():
        found = [difference(collect(each, lambda task: task.state(constants).answer(task.queries), HALF), base, samples=2) for each, base in zip(models, zero_shot[group])]
        values = [(value[0], f"{group} {s}") for f in found for s, value in f.items() if s != "mean"]
        means.append(sum(v for v, _ in values) / len(values))
        every += values
    worst = min(every)
    row(name, *(f"{m:+.2f}" for m in means), f"{sum(v for v, _ in every) / len(every):+.2f}", f"{worst[0]:+.1f} {worst[1]}")
