"""xmore-kernel in numpy: the reference that crates/xmore/src/calibrated was written after. docs/method.md has the formulas.

    state = setup(labels, memory, scale)   once for (labels, memory, model)
    answer = state.answer(images)          rows do not depend on one another
"""
import hashlib
from dataclasses import dataclass

from pinned import np


@dataclass(frozen=True)
class Constants:
    """Names are docs/method.md's; the defaults are those of the method."""
    near: int = 1024            # N, pairs of which a recall is made
    references: int = 256       # R
    A: float = 0.3              # weight of the reading against recalled labels
    B: float = 0.3              # weight of the reading against the labels' texts
    closed: float = 1 / 3       # round trip that closes the gate
    open: float = 1 / 2         # round trip that opens it
    mu: float = 0.5             # share of captions in the kernel
    kappa: float = 1.0          # the kernel's inverse temperature, as a multiple of s
    kappa_trip: float = 2.0     # that of the round trip


@dataclass
class Memory:
    """Unit rows: a pair's image and caption; `image` is the number of a pair's image."""
    images: np.ndarray
    captions: np.ndarray
    image: np.ndarray

    def __post_init__(self):
        self.first = np.unique(self.image, return_index=True)[1]    # first row of each image
        self.mean = self.captions.mean(0, dtype="f8")


def softmax(z, axis=-1):
    e = np.exp(z - z.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def spread(x):
    """Root mean square around each row's own mean."""
    return np.sqrt(((x - x.mean(-1, keepdims=True)) ** 2).mean())


def nearest(points, images, n, left_out=None):
    """For each point the rows of the n nearest images, best first, ties by row, and their cosines; left_out(i) masks rows."""
    for start in range(0, len(points), 64):
        for i, cosines in enumerate(points[start:start + 64] @ images.T, start):
            if left_out is not None:
                cosines = np.where(left_out(i), -9, cosines)
            count = min(n, len(cosines))
            rows = np.argpartition(-cosines, count - 1)[:count]
            rows = rows[cosines[rows] > -8]
            rows = rows[np.lexsort((rows, -cosines[rows]))]
            yield rows, cosines[rows]


def recall(points, memory, kappa, mu, n, left_out=None):
    """m(x) for each point, [points, d], and the cosine of its nearest pair."""
    out, top = np.empty((len(points), memory.captions.shape[1])), np.empty(len(points))
    for i, (rows, cosines) in enumerate(nearest(points, memory.images, n, left_out)):
        captions = memory.captions[rows]
        weights = softmax(kappa * ((1 - mu) * cosines + mu * (captions @ points[i])).astype("f8"))
        out[i], top[i] = weights @ captions - memory.mean, cosines[0]
    return out, top


def references(first, n):
    """n of the images, the same everywhere: those of the smallest SHA-256 of the decimal number of their first row."""
    if len(first) <= n:
        return np.arange(len(first))
    digests = [hashlib.sha256(str(int(row)).encode()).digest() for row in first]
    return np.array(sorted(range(len(first)), key=digests.__getitem__)[:n])


class State:
    """What the method knows of a memory under some labels."""

    def __init__(self, labels, memory, scale, constants):
        self.labels, self.memory, self.scale, self.constants = labels.astype("f8"), memory, scale, constants

    def recall(self, points, left_out=None):
        c = self.constants
        return recall(points, self.memory, c.kappa * self.scale, c.mu, c.near, left_out)

    def gate(self, q):
        c = self.constants
        known = np.minimum(q @ self.round_trips, self.round_trip)
        return np.clip((known - c.closed) / (c.open - c.closed), 0, 1)

    def parts(self, images):
        """z, e, u, g and n̄/n of each image."""
        z = self.scale * (images.astype("f8") @ self.labels.T)
        if self.round_trip <= self.constants.closed:
            return dict(z=z, g=np.zeros(len(z)))
        m, near = self.recall(images)
        return dict(
            z=z,
            e=self.scale * self.lambda_e * (m @ self.labels.T),
            u=self.scale * self.lambda_u * (m @ self.recalled.T),
            g=self.gate(softmax(z)),
            further=np.maximum(1, self.near / np.maximum(near, 1e-3)),
            m=m,
        )

    def answer(self, images):
        """The distribution of each image; `last` keeps its parts."""
        c, p = self.constants, self.parts(images)
        self.last = p
        if "e" not in p:
            return softmax(p["z"])
        p["f"] = p["z"] + p["g"][:, None] * (c.B * p["e"] + c.A * p["u"])
        temperature = (1 + p["g"] * (c.A + c.B)) * (1 + p["g"] * (p["further"] - 1))
        return softmax(p["f"] / temperature[:, None])


def round_trips(labels, memory, scale, constants=Constants()):
    """ρ_c: a label as if it were an image, the captions around it, classified: the probability of the same label."""
    m, _ = recall(labels.astype("f4"), memory, constants.kappa_trip * scale, 0, constants.near)
    return np.diag(softmax(scale * (m @ labels.astype("f8").T))).copy()


def setup(labels, memory, scale, constants=Constants()):
    state = State(labels, memory, scale, constants)
    state.round_trips = round_trips(labels, memory, scale, constants)
    state.round_trip = state.round_trips.mean()
    if state.round_trip <= constants.closed:
        return state
    state.recalled = unit(state.recall(labels.astype("f4"))[0])
    rows = memory.first[references(memory.first, constants.references)]
    images = memory.images[rows]
    m, near = state.recall(images, lambda i: memory.image == memory.image[rows[i]])
    z = images.astype("f8") @ state.labels.T
    state.lambda_e, state.lambda_u = spread(z) / spread(m @ state.labels.T), spread(z) / spread(m @ state.recalled.T)
    state.near, state.reference_images, state.reference_recalls = np.median(near), images, m
    return state
