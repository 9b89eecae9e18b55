"""Accuracy, calibration and paired intervals."""
from pinned import np


def right(p, y):
    return (p.argmax(1) == y) * 1.0


def ece(p, y, bins=15):
    """Expected calibration error over bins of equal width."""
    return ece_of(p.max(1), right(p, y), bins)


def ece_of(confidence, ok, bins=15):
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    each = [bin_of == b for b in range(bins)]
    return sum(abs(ok[b].mean() - confidence[b].mean()) * b.mean() for b in each if b.any())


def nll(p, y):
    return -np.log(np.maximum(p[np.arange(len(y)), y], 1e-12)).mean()


def brier(p, y):
    return ((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean()


def collect(tasks, method, half=None):
    """{set: (p, y, files)} of one half (0 design, 1 report) or of all images; the stamps' splits become one set."""
    out = {}
    for task in tasks:
        p, keep = method(task), np.ones(len(task.y), bool) if half is None else task.half == half
        out.setdefault(task.set, []).append((p[keep], task.y[keep], np.array(task.files)[keep]))
    return {name: tuple(np.concatenate(column) for column in zip(*parts)) for name, parts in out.items()}


def accuracy(collected):
    return {name: 100 * right(p, y).mean() for name, (p, y, _) in collected.items()}


def difference(a, b, samples=2000):
    """{set: (a − b in points, low, high)} and their mean: 95 % bootstrap intervals, files drawn, both methods on the same ones."""
    rng, out, boots = np.random.RandomState(7), {}, []
    for name in a:
        each = right(*a[name][:2]) - right(*b[name][:2])
        files, of = np.unique(a[name][2], return_inverse=True)
        total, count = np.bincount(of, each), np.bincount(of)
        drawn = rng.randint(0, len(files), (samples, len(files)))
        boots.append(100 * total[drawn].sum(1) / count[drawn].sum(1))
        out[name] = (100 * each.mean(), *np.quantile(boots[-1], [0.025, 0.975]))
    mean = np.mean(boots, 0)
    out["mean"] = (np.mean([v[0] for v in out.values()]), *np.quantile(mean, [0.025, 0.975]))
    return out


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def head(*cells):
    row(*cells)
    print("|" + "---|" * len(cells))


def intervals(of):
    return [f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" for mean, low, high in of.values()]


def percents(values, digits=1):
    return [f"{value:.{digits}f}" for value in values]
