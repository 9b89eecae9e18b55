"""xmore-kernel where only a remote index's neighbors are known: no mean over all captions, no reference images, no names."""
from method import Constants, nearest, recall, softmax, unit
from pinned import np


class RemoteState:
    """The memory stands in for the remote index: `neighbors` pairs a query are all that is seen of it."""

    def __init__(self, labels, memory, scale, neighbors=128):
        self.texts, self.labels, self.scale, self.n = labels.astype("f4"), labels.astype("f8"), scale, neighbors
        seen = np.unique(np.concatenate([rows for rows, _ in nearest(self.texts, memory, neighbors)]))
        self.memory, self.mean = memory, memory.captions[seen].mean(0, dtype="f8")  # of the captions that came back for the labels
        back = self.recall(self.texts, 2 * scale, 0)
        self.trip = np.diag(softmax(scale * (back @ self.labels.T)))
        self.label_means = unit(self.recall(self.texts, scale, Constants().mu))

    def recall(self, points, kappa, mu):
        return recall(points, self.memory, kappa, mu, self.n)[0] + self.memory.mean - self.mean

    def answer(self, images):
        c, z = Constants(), self.scale * (images.astype("f8") @ self.labels.T)
        q, chance = softmax(z), 1 / len(self.labels)
        low, high = max(c.trip[0], chance + (1 - chance) / 6), max(c.trip[1], chance + (1 - chance) / 3)
        g = np.clip((np.minimum(q @ self.trip, self.trip.mean()) - low) / (high - low), 0, 1)[:, None]
        rms = lambda x: np.sqrt(((x - x.mean(1, keepdims=True)) ** 2).mean(1, keepdims=True))
        m = self.recall(images, self.scale, c.mu)
        readings = [self.scale * (m @ rows.T) for rows in (self.labels, self.label_means)]
        e, u = [r * rms(z) / np.maximum(rms(r), 1e-9) for r in readings]    # to the spread of this very image
        return softmax((z + g * (c.B * e + c.A * u)) / (1 + g * (c.A + c.B)))
