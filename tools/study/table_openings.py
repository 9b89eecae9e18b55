"""Every opening of the paper's follow-ups, and further ideas: difference to zero-shot, report half; side sets on all images."""
import method
import tasks
from baselines import captions, confidence, neighbors, of_captions, weighted, zero_shot
from figures import collect, difference, head, intervals, right, row
from method import softmax, unit
from pinned import np

S = tasks.SCALE


def prepare(t):
    """What the openings share: kept captions, both distributions, and the same of 256 reference images without their own pairs."""
    m = t.memory
    t.z, t.kept = S * (t.queries.astype("f8") @ t.labels.T), captions(t.queries, m, t.near(), 16)
    t.image, t.caption = zero_shot(t), of_captions(t, t.kept)
    t.mean_image, t.mean_caption = m.distinct.mean(0), m.captions.mean(0)
    rows = m.first[method.references(m.first, 256)]
    t.references = m.images[rows]
    t.reference_kept = captions(t.references, m, neighbors(t.references, m, t.looked_at, m.image[rows]), 16)
    t.reference_image, t.reference_caption = softmax(S * (t.references @ t.labels.T)), of_captions(t, t.reference_kept)
    similarity = lambda points, kept: np.array([(m.captions[k] @ x).mean() for x, k in zip(points, kept)])
    t.similarity, t.reference_similarity = similarity(t.queries, t.kept), similarity(t.references, t.reference_kept)
    weights = softmax(S * (t.queries @ m.images.T))
    t.recalled_captions, t.recalled_images = weights @ m.captions - t.mean_caption, weights @ m.images - t.mean_image
    tasks.calibrated(t, closed=-2, open=-1)
    t.open = t.state.last
    t.gated = tasks.calibrated(t)


def entropy_matched(t):
    """The temperature that brings the references' caption distributions to the entropy of their image distributions."""
    entropy = lambda p: -(p * np.log(np.clip(p, 1e-30, 1))).sum(1).mean()
    low, high = .05, 4.
    for _ in range(30):
        middle = np.sqrt(low * high)
        sharper = entropy(of_captions(t, t.reference_kept, middle * S)) > entropy(t.reference_image)
        low, high = (middle, high) if sharper else (low, middle)
    return weighted(t.image, of_captions(t, t.kept, middle * S))


def reference_confidences(t):
    a = confidence(t.image) / confidence(t.reference_image).mean()
    b = confidence(t.caption) / confidence(t.reference_caption).mean()
    return (a[:, None] * t.image + b[:, None] * t.caption) / (a + b)[:, None]


def by_similarity(t, sharpness):
    of = lambda captions, x: softmax(sharpness * (captions @ x)) @ softmax(S * (captions @ t.labels.T))
    return np.array([of(t.memory.captions[k], x) for k, x in zip(t.kept, t.queries)])


def z_score_gate(t):
    usual = t.reference_similarity
    w = (.5 / (1 + np.exp(-2 * (t.similarity - usual.mean()) / usual.std())))[:, None]
    return (1 - w) * t.image + w * t.caption


def neighbor_images(t):
    def of(rows):
        distinct = rows[np.sort(np.unique(t.memory.image[rows], return_index=True)[1])][:16]
        return softmax(S * (t.memory.images[distinct] @ t.labels.T)).mean(0)
    return 2 / 3 * weighted(t.image, t.caption) + 1 / 3 * np.array([of(rows) for rows in t.near()])


def centred(t):
    labels = unit(t.labels - t.mean_caption)
    of = lambda k: softmax(S * (unit(t.memory.captions[k] - t.mean_caption) @ labels.T)).mean(0)
    return weighted(softmax(S * (unit(t.queries - t.mean_image) @ labels.T)), np.array([of(k) for k in t.kept]))


def label_bias(t, strength):
    def without(p, usual):
        q = p / usual.mean(0) ** strength
        return q / q.sum(1, keepdims=True)
    return weighted(without(t.image, t.reference_image), without(t.caption, t.reference_caption))


def mean_embedding(t, centre):
    return np.array([t.memory.captions[k].mean(0) - centre * t.mean_caption for k in t.kept])


def csls(t):
    cosines = t.memory.distinct @ t.labels.T
    return softmax(t.z - .5 * S * np.sort(cosines, 0)[-max(1, len(cosines) // 100):].mean(0))


def whitened(t, shrinkage):
    x = t.memory.distinct.astype("f8")
    c, d = np.cov((x - x.mean(0)).T), x.shape[1]
    values, vectors = np.linalg.eigh((1 - shrinkage) * c + shrinkage * np.trace(c) / d * np.eye(d))
    to = vectors / np.sqrt(values)
    return softmax(S * (unit((t.queries - x.mean(0)) @ to) @ unit((t.labels - t.mean_caption) @ to).T))


def prototypes(t):
    of = np.array([softmax(S * (t.memory.captions @ label)) @ t.memory.images for label in t.labels]) - t.mean_image
    return softmax(t.z + .5 * S * ((t.queries - t.mean_image) @ unit(of).T))


def ridge(t):
    x, y = t.memory.images - t.mean_image, t.memory.captions - t.mean_caption
    gram, d = x.T @ x, x.shape[1]
    to = np.linalg.solve(gram + .1 * np.trace(gram) / d * np.eye(d), x.T @ y)
    return softmax(t.z + S * (((t.queries - t.mean_image) @ to) @ t.labels.T))


OPENINGS = {
    "xmore": lambda t: weighted(t.image, t.caption),
    "equal": lambda t: .5 * (t.image + t.caption),
    "captions": lambda t: t.caption,
    "1 caption temperature, entropy matched": entropy_matched,
    "2 reference confidences": reference_confidences,
    "3 captions weighted by similarity, τ = s, xmore": lambda t: weighted(t.image, by_similarity(t, S)),
    "3 the same, τ = 2s, xmore": lambda t: weighted(t.image, by_similarity(t, 2 * S)),
    "4 z-score gate": z_score_gate,
    "5 neighbors' images, a third": neighbor_images,
    "6 both modalities centred, xmore": centred,
    "7 product of experts": lambda t: softmax(np.log(t.image) + np.log(t.caption + 1e-12)),
    "7 label bias ½, xmore": lambda t: label_bias(t, .5),
    "7 label bias 1, xmore": lambda t: label_bias(t, 1),
    "captions averaged before softmax, xmore": lambda t: weighted(t.image, softmax(S * (mean_embedding(t, 0) @ t.labels.T))),
    "the same centred, ½ onto logits": lambda t: softmax(t.z + .5 * S * (mean_embedding(t, 1) @ t.labels.T)),
    "CSLS, 1 % nearest": csls,
    "whitening, shrinkage .3": lambda t: whitened(t, .3),
    "whitening, shrinkage .9": lambda t: whitened(t, .9),
    "visual prototypes, ½ onto logits": prototypes,
    "ridge map image → caption onto logits": ridge,
    "recall of all captions (μ = 0) onto logits": lambda t: softmax(t.z + S * (t.recalled_captions @ t.labels.T)),
    "recall of all images, ½ onto logits": lambda t: softmax(t.z + .5 * S * (t.recalled_images @ t.labels.T)),
    "e alone (B = .6), no gate": lambda t: softmax(t.open["z"] + .6 * t.open["e"]),
    "u alone (A = .6), no gate": lambda t: softmax(t.open["z"] + .6 * t.open["u"]),
    "e and u, no gate": lambda t: softmax(t.open["z"] + .3 * t.open["e"] + .3 * t.open["u"]),
    "**e and u, gate**": lambda t: t.gated,
}

memory = tasks.flickr8k()
four = tasks.four(memory)
side = [tasks.Task("imagenette160", memory, n) for n in ("in200_0", "in200_1", "in50_0")] + [tasks.Task("labeled100", memory)]
for task in four + side:
    prepare(task)
base = collect(four, zero_shot, 1)
head("opening", *base, "mean", "in200_0", "in200_1", "in50_0", "labeled100")
for name, opening in OPENINGS.items():
    beside = [100 * (right(opening(task), task.y) - right(zero_shot(task), task.y)).mean() for task in side]
    row(name, *intervals(difference(collect(four, opening, 1), base)), *(f"{gain:+.1f}" for gain in beside))
