"""Why ECE stays above half of xmore's: temperatures, label-free signals, a supervised model, the noise of ECE itself. Design half."""
import itertools

import baselines
import tasks
from baselines import zero_shot
from figures import ece_of, head, percents, right, row
from method import softmax
from pinned import np

memory = tasks.flickr8k()
four = tasks.four(memory)
NAMES = [*tasks.MAIN, "demo"]
for t in four:
    tasks.calibrated(t)
    p = t.state.last
    t.p, t.keep, t.top, each = p, t.half == 0, p["f"].argmax(1), np.arange(len(t.y))
    t.ok = (t.top == t.y) * 1.0
    q, r, f = softmax(p["z"]), softmax((p["e"] + p["u"]) / 2), softmax(p["f"])
    overlap, c = (q * r).sum(1), len(t.labels)
    t.signals = {
        # accuracy of two equally good, independent judges that agree this often
        "agreement": (1 + np.sqrt((c - 1) * np.maximum(c * overlap - 1, 0))) / c,
        "p of the answer": np.sqrt(q[each, t.top] * r[each, t.top]),
        "Bhattacharyya": np.sqrt(q * r).sum(1),
        "cosine": overlap / np.sqrt((q ** 2).sum(1) * (r ** 2).sum(1)),
    }
    odds = lambda x: np.log(np.clip(x, 1e-4, 1 - 1e-4) / (1 - np.clip(x, 1e-4, 1 - 1e-4)))
    cosine, lengths = (t.queries @ t.labels.T)[each, t.top], np.linalg.norm(t.state.reference_recalls, axis=1)
    nearest_captions = np.sort(t.queries @ t.memory.captions.T, 1)[:, -16:].mean(1)
    t.features = np.c_[odds(q[each, t.top]), odds(r[each, t.top]), odds(f[each, t.top]), odds(t.signals["agreement"]), np.log(p["further"]),
                       np.log(np.linalg.norm(p["m"], axis=1) / np.median(lengths)), cosine, nearest_captions, nearest_captions - cosine,
                       (t.state.reference_images @ t.labels.T).max(1).mean() - cosine, np.ones(len(t.y))]


def of_sets(method):
    """ECE of the four sets, design half, of `method(task)` → confidences and correctness."""
    found = {}
    for t in four:
        confidence, ok = method(t)
        found.setdefault(t.set, []).append((confidence[t.keep], ok[t.keep]))
    return np.array([ece_of(*map(np.concatenate, zip(*found[name]))) for name in NAMES])


def distribution(method):
    def of(t):
        p = method(t)
        return p.max(1), right(p, t.y)
    return of_sets(of)


xmore = distribution(baselines.xmore)
print("## ECE, design half, answers f under a temperature")
head("", *NAMES)
row("half of xmore's", *percents(xmore / 2, 3))
for temperature in (1, 1.25, 1.5, 2, 2.5, 3, 4, 5):
    row(f"T = {temperature}", *percents(distribution(lambda t: softmax(t.p["f"] / temperature)), 3))
row("as designed", *percents(distribution(lambda t: t.state.answer(t.queries)), 3))
row("T = (1 + .3 g) r^½", *percents(distribution(lambda t: softmax(t.p["f"] / ((1 + .3 * t.p["g"]) * t.p["further"] ** .5)[:, None])), 3))

print("\n## label-free temperatures (1 + g (b + k (1 − signal)^h)) (1 + g (r^j − 1)), ECE as a share of xmore's; the bar is .5 on each")
results = []
for signal, h, k, j, b in itertools.product(four[0].signals, (.5, 1, 2), (0, .5, 1, 2, 3, 4), (0, .5, 1, 2), (0, .3, .6, 1)):
    def cooled(t):
        g, away = t.p["g"], 1 - np.clip(t.signals[signal], .05, 1)
        return softmax(t.p["f"] / ((1 + g * (b + k * away ** h)) * (1 + g * (t.p["further"] ** j - 1)))[:, None])
    results.append((distribution(cooled) / xmore, f"{signal}: h {h}, k {k}, j {j}, b {b}"))
head(f"best of {len(results)}", *NAMES, "worst", "setting")
for name, key in (("by the worst set", max), ("by the mean", np.mean)):
    ratios, setting = min(results, key=lambda result: key(result[0]))
    row(name, *percents(ratios, 2), f"{max(ratios):.2f}", setting)
row("sets within the bar at once, at most", max(int((ratios <= .5).sum()) for ratios, _ in results), "", "", "", "", "")

print("\n## a logistic model of ten features, fitted on these very answers' labels, each set with the same weight")
x = np.concatenate([t.features[t.keep] for t in four])
ok = np.concatenate([t.ok[t.keep] for t in four])
size = {name: sum(t.keep.sum() for t in four if t.set == name) for name in NAMES}
weight = np.concatenate([np.full(t.keep.sum(), 1 / size[t.set]) for t in four]) / len(NAMES)
w = np.zeros(x.shape[1])
for _ in range(50):
    p = 1 / (1 + np.exp(-x @ w))
    w -= np.linalg.solve((x.T * (weight * p * (1 - p))) @ x + 1e-4 * np.eye(len(w)), x.T @ (weight * (p - ok)) + 1e-4 * w)
head("", *NAMES)
row("ECE as a share of xmore's", *percents(of_sets(lambda t: (1 / (1 + np.exp(-t.features @ w)), t.ok)) / xmore, 2))

print("\n## mean ECE of a predictor whose confidences are true (beta(2, 1.5), 200 draws)")
rng = np.random.RandomState(0)
head("images", "ECE")
for count in (182, 250, 350, 500, 1000):
    draws = []
    for _ in range(200):
        confidence = rng.beta(2, 1.5, count)
        draws.append(ece_of(confidence, (rng.rand(count) < confidence) * 1.0))
    row(count, f"{np.mean(draws):.3f}")
