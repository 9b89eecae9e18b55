"""xmore-kernel in numpy, which crates/xmore/src/kernel was written after. docs/method.md has the formulas.

    state = State(names, labels, memory, scale)   once for (labels, memory, model)
    answer = state.answer(images)                 rows do not depend on one another
"""
import hashlib
from dataclasses import dataclass

import mentions
from pinned import np


@dataclass(frozen=True)
class Constants:
    """Names are docs/method.md's; the defaults are those of the method."""
    near: int = 1024            # N, pairs of which a kernel mean is made
    references: int = 256       # images of the memory that stand for queries
    others: int = 512           # images of the memory that a label's images are compared with
    sample: int = 4096          # images of the memory whose covariance is taken
    naming: int = 1024          # images of a label, at most
    A: float = 0.3              # weight of the reading against the labels' kernel means
    B: float = 0.3              # weight of the reading against the labels' texts
    mu: float = 0.5             # share of captions in the kernel
    trip: tuple = (1 / 3, 1 / 2)            # what closes and opens the gate: label round trip
    named: tuple = (1 / 3, 1 / 2)           # the same for names
    caption_trip: tuple | None = (1 / 3, 1 / 2)     # the same for the caption round trip
    caption_images: int = 2
    caption_near: int = 128
    trust: tuple = (0.6, 0.8)   # share of comparisons won: nothing is trusted, all is
    paired: tuple | None = (0.55, 0.65)     # share of comparisons that captions win for their own images: the same
    few: float = 3              # images that count half
    names: bool = True          # whether captions that name labels count
    head: bool = True           # whether labels count less of which captions have the last word only
    prototypes: float = 1.0     # weight of the prototypes' reading
    power: float = 2            # of the support in that weight
    whiten: bool = True         # prototypes under the memory's covariance, or plain ones
    pooled: float = 0.5         # what the prototypes add to the temperature
    far: tuple | None = (0.5, 0.7)      # nearest similarity over what is usual: round trips count for nothing, for all
    close: tuple | None = (0.85, 1.0)   # the same: for all, for `boost` more
    boost: float = 0.5
    open: bool = False          # the gate wholly open


# The method before names, prototypes and the caption round trip.
BEFORE = Constants(names=False, head=False, prototypes=0, caption_trip=None, paired=None, far=None, close=None)


@dataclass
class Memory:
    """Unit rows: a pair's image and caption; `texts` the captions; `image` is the number of a pair's image."""
    images: np.ndarray
    captions: np.ndarray
    texts: list
    image: np.ndarray

    def __post_init__(self):
        self.first = np.unique(self.image, return_index=True)[1]    # first row of each image
        self.distinct = self.images[self.first]
        self.mean = self.captions.mean(0, dtype="f8")
        digest = lambda row: hashlib.sha256(str(int(row)).encode()).digest()
        # Images by the SHA-256 of the decimal number of their first row.
        self.order = np.array(sorted(range(len(self.first)), key=lambda i: digest(self.first[i])))
        self.rank = np.argsort(self.order)


def softmax(z, axis=-1):
    e = np.exp(z - z.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def spread(x):
    """Root mean square around each row's own mean."""
    return np.sqrt(((x - x.mean(-1, keepdims=True)) ** 2).mean())


def nearest(points, memory, n, own=None):
    """For each point the rows of the n nearest images, best first, ties by row, and their cosines; `own` is its image in the memory, left out."""
    for start in range(0, len(points), 64):
        for i, cosines in enumerate(points[start:start + 64] @ memory.images.T, start):
            if own is not None:
                cosines = np.where(memory.image == own[i], -9, cosines)
            count = min(n, len(cosines))
            # All that tie with the last, then the smaller rows of them: an image's captions tie.
            rows = np.where(cosines >= max(np.partition(cosines, len(cosines) - count)[len(cosines) - count], -8))[0]
            rows = rows[np.lexsort((rows, -cosines[rows]))][:count]
            yield rows, cosines[rows]


def recall(points, memory, kappa, mu, n, own=None):
    """m(x) for each point, [points, d], and the cosine of its nearest pair."""
    out, top = np.empty((len(points), memory.captions.shape[1])), np.empty(len(points))
    for i, (rows, cosines) in enumerate(nearest(points, memory, n, own)):
        captions = memory.captions[rows]
        weights = softmax(kappa * ((1 - mu) * cosines + mu * (captions @ points[i])).astype("f8"))
        out[i], top[i] = weights @ captions - memory.mean, cosines[0]
    return out, top


def share_of_wins(own, other):
    """How often a value of `own` is larger than one of `other`, ties half."""
    if not len(own) or not len(other):
        return 0.5
    other = np.sort(other)
    return (np.searchsorted(other, own, "left") + np.searchsorted(other, own, "right")).mean() / 2 / len(other)


class State:
    """What the method knows of a memory under some labels. `recalled(points, …)` may keep what does not depend on the labels."""

    def __init__(self, names, labels, memory, scale, constants=Constants(), recall=recall, naming=None):
        c, self.constants, self.memory, self.scale, self.recalled = constants, constants, memory, scale, recall
        self.texts, self.labels = labels.astype("f4"), labels.astype("f8")
        self.named, heads = naming(names, memory) if naming else mentions.naming(names, memory.texts, memory.image)
        self.n = np.array([len(images) for images in self.named])
        enough = lambda n: n / (n + c.few)
        head = enough(np.array([len(images) for images in heads])) * (1 - enough(self.n)) if c.head else np.zeros(len(names))
        pairing = self.pairing_trust() if c.paired else 1
        self.support = pairing * self.names_support() * enough(self.n) if c.names else np.zeros(len(names))
        back, _ = recall(self.texts, memory, 2 * scale, 0, c.near)
        trip = np.diag(softmax(scale * (back @ self.labels.T)))
        self.measures = [(pairing * trip * (1 - head), self.thresholds(c.trip)), (self.support, c.named)]
        if c.caption_trip:
            self.measures.append((pairing * self.caption_trip() * (1 - head), self.thresholds(c.caption_trip)))
        if len(names) == 2 and c.names:
            # Round trips of two labels both come back by chance one time in four.
            self.measures[0] = (self.measures[0][0] * 0, self.measures[0][1])
            self.measures[2:] = []
        self.label_means = unit(recall(self.texts, memory, scale, c.mu, c.near)[0])
        images = memory.order[:c.references]
        references = memory.distinct[images]
        m, near = recall(references, memory, scale, c.mu, c.near, images)
        z = scale * (references.astype("f8") @ self.labels.T)
        self.lambda_e = spread(z) / max(spread(scale * (m @ self.labels.T)), 1e-12)
        self.lambda_u = spread(z) / max(spread(scale * (m @ self.label_means.T)), 1e-12)
        self.near = np.median(near)
        self.make_prototypes(references.astype("f8"), z)

    def thresholds(self, pair):
        """Of few labels, chance alone comes back often."""
        chance = 1 / len(self.labels)
        return max(pair[0], chance + (1 - chance) / 6), max(pair[1], chance + (1 - chance) / 3)

    def names_support(self):
        """How far the images that name a label can be trusted to show it, in [0, 1]."""
        others, low_high, out = self.memory.order[:self.constants.others], self.constants.trust, []
        for c, named in enumerate(self.named):
            own = self.kept(named)
            score = self.memory.distinct @ (self.labels[c] - self.labels.mean(0)).astype("f4")
            wins = share_of_wins(score[own], score[[i for i in others if i not in named]])
            out.append(np.clip((wins - low_high[0]) / (low_high[1] - low_high[0]), 0, 1))
        return np.array(out)

    def pairing_trust(self):
        """How far captions fit their own images better than other images' captions do, in [0, 1]."""
        memory, (low, high) = self.memory, self.constants.paired
        images = memory.order[:self.constants.others]
        fit = memory.distinct[images] @ memory.captions[memory.first[images]].T
        wins = (np.diag(fit)[:, None] > fit) + 0.5 * (np.diag(fit)[:, None] == fit)
        return np.clip((wins[~np.eye(len(images), dtype=bool)].mean() - low) / (high - low), 0, 1)

    def kept(self, named):
        """Of many images those of the smallest hashes."""
        return np.array(sorted(named, key=lambda i: self.memory.rank[i])[:self.constants.naming], int)

    def caption_trip(self):
        """The images of the captions most like a label, the other captions around them, classified: the mean probability of the label."""
        c, memory, found = self.constants, self.memory, []
        for cosines in self.texts @ memory.captions.T:
            images = memory.image[np.argsort(-cosines, kind="stable")[:64]]
            found.append(images[np.sort(np.unique(images, return_index=True)[1])][:c.caption_images])
        every = np.unique(np.concatenate(found))
        m, _ = self.recalled(memory.distinct[every], memory, self.scale, c.mu, c.caption_near, every)
        p = softmax(self.scale * (m @ self.labels.T))
        return np.array([p[np.searchsorted(every, images), label].mean() for label, images in enumerate(found)])

    def make_prototypes(self, references, z):
        supported = self.support > 0
        self.directions = None
        if supported.sum() < 2 or not self.constants.prototypes:
            return
        sample = self.memory.distinct[self.memory.order[:self.constants.sample]].astype("f8")
        self.mean, d = sample.mean(0), sample.shape[1]
        inverse = np.eye(d)
        if self.constants.whiten:
            covariance, shrinkage = np.cov(sample.T, bias=True), d / (d + len(sample))
            inverse = np.linalg.inv((1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / d * np.eye(d))
        self.directions = np.zeros((len(self.labels), d))
        for label in np.where(supported)[0]:
            center = self.memory.distinct[self.kept(self.named[label])].mean(0, dtype="f8") - self.mean
            self.directions[label] = inverse @ center / max(np.sqrt(center @ inverse @ center), 1e-12)
        l = (references - self.mean) @ self.directions.T
        self.lambda_l = spread(z[:, supported]) / max(spread(l[:, supported]), 1e-12)

    def gates(self, q, nearness):
        """The gate of each measure and image, [measures, images]; round trips count by how near the memory is to the image."""
        c, out = self.constants, []
        ramp = lambda pair, x: np.clip((x - pair[0]) / (pair[1] - pair[0]), 0, 1)
        counts = (ramp(c.far, nearness) if c.far else 1) * (1 + c.boost * ramp(c.close, nearness) if c.close else 1)
        for i, (of, thresholds) in enumerate(self.measures):
            support = np.minimum(q @ of, of.mean()) * (counts if i != 1 else 1)
            out.append(ramp(thresholds, support))
        return np.array(out)

    def answer(self, images):
        """The distribution of each image; `gate` and `weight` keep how far the memory counted."""
        c = self.constants
        z = self.scale * (images.astype("f8") @ self.labels.T)
        q = softmax(z)
        m, top = self.recalled(images, self.memory, self.scale, c.mu, c.near)
        self.gate = np.ones(len(z)) if c.open else self.gates(q, top / self.near).max(0)
        e, u = (self.scale * factor * (m @ rows.T) for factor, rows in ((self.lambda_e, self.labels), (self.lambda_u, self.label_means)))
        f = z + self.gate[:, None] * (c.B * e + c.A * u)
        further = np.maximum(1, self.near / np.maximum(top, 1e-3))
        temperature = (1 + self.gate * (c.A + c.B)) * (1 + self.gate * (further - 1))
        self.weight = np.zeros(len(z))
        if self.directions is not None:
            h, l = self.support, self.lambda_l * ((images.astype("f8") - self.mean) @ self.directions.T)
            self.weight = c.prototypes * (q @ h) ** c.power
            f = f + self.weight[:, None] * h * (l - (l @ h / h.sum())[:, None])
            temperature = temperature * (1 + c.pooled * self.weight)
        return softmax(f / temperature[:, None])
