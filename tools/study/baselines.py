"""The paper's retrieval in two stages, and the methods that average the kept captions' distributions."""
from method import softmax
from pinned import np


def neighbors(queries, memory, n, own=None):
    """Rows of the n pairs with the nearest images, ties by row; `own` is each query's image in the memory, left out."""
    out = []
    for i in range(len(queries)):
        cosines = memory.images @ queries[i]
        if own is not None:
            cosines = np.where(memory.image == own[i], -9, cosines)
        count = min(n, len(cosines))
        least = np.partition(cosines, len(cosines) - count)[len(cosines) - count]
        rows = np.where(cosines >= least)[0]
        out.append(rows[np.argsort(-cosines[rows], kind="stable")][:count])
    return out


def captions(queries, memory, near, k):
    """Of each query's neighbors the k captions nearest to the query, equal texts once."""
    out = []
    for query, rows in zip(queries, near):
        rows = rows[np.sort(np.unique(memory.text[rows], return_index=True)[1])]
        out.append(rows[np.lexsort((rows, -(memory.captions[rows] @ query)))[:k]])
    return out


def confidence(p):
    """1 − H / ln C."""
    return 1 + (p * np.log(np.clip(p, 1e-30, 1))).sum(-1) / np.log(p.shape[-1])


def weighted(p, q):
    """The paper's ensemble: each distribution by its confidence."""
    a, b = confidence(p)[:, None], confidence(q)[:, None]
    return (a * p + b * q) / (a + b)


def zero_shot(task):
    return softmax(task.scale * (task.queries.astype("f8") @ task.labels.T))


def of_captions(task, kept, scale=None):
    """Mean distribution of the kept captions."""
    scale = task.scale if scale is None else scale
    labels = task.labels.astype("f8").T
    return np.array([softmax(scale * (task.memory.captions[rows] @ labels)).mean(0) for rows in kept])


def xmore(task, k=16):
    kept = captions(task.queries, task.memory, task.near(k), k)
    return weighted(zero_shot(task), of_captions(task, kept))
