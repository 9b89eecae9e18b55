"""How many rows a proven bound of few bits leaves among the n best: `search_bits.py [MEMORY]`, random rows without a memory.

Rows are centered and coded as the memory's codes are (crates/xmore-memory/src/search/codes), of which the first bits are kept; a
row survives if its estimate and the exact length of its rounding error, times the query's length, reach the floor: the n-th best
lower bound by all 8 bits. n is 128 of a million rows. Needs numpy.
"""

import sys
from pathlib import Path

import numpy as np

QUERIES = 12
PART_ROWS = 65_536


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def coded(rows, bits):
    """Rows with the first bits of their codes and the middle of what is left, and the length of the error, `[rows]`."""
    scale = np.abs(rows).max(axis=1, keepdims=True) / 127
    codes = np.clip(np.rint(rows / scale), -127, 127)
    if bits < 8:
        width = 2 ** (8 - bits)
        codes = np.floor((codes + 128) / width) * width + width / 2 - 128
    values = codes * scale
    return values, np.linalg.norm(rows - values, axis=1)


def survivors(name, parts, queries):
    """Prints the percentage of rows left for 6 to 1 bits, mean and most of the queries."""
    uppers = {bits: [] for bits in (6, 5, 4, 3, 2, 1)}
    lowers = []
    for rows in parts:
        mean = rows.mean(axis=0)
        for bits in (8, *uppers):
            values, error = coded(rows - mean, bits)
            estimate = (values @ queries.T + mean @ queries.T).T
            if bits == 8:
                lowers.append(estimate - error)
            else:
                uppers[bits].append(estimate + error)
    lowers = np.concatenate(lowers, axis=1)
    n = max(1, round(128e-6 * lowers.shape[1]))
    floors = -np.partition(-lowers, n - 1, axis=1)[:, n - 1]
    for bits, upper in uppers.items():
        left = 100 * (np.concatenate(upper, axis=1) >= floors[:, None]).mean(axis=1)
        print(f"{name}, {lowers.shape[1]} rows, n {n}, {bits} bits: mean {left.mean():.3f} %, most {left.max():.3f} %")


def normal(random, count, dim=512):
    return unit(random.normal(size=(count, dim)).astype(np.float32))


def clustered(random, count, dim=512, clusters=1000):
    shared = np.random.default_rng(7)
    centres = 0.5 * normal(shared, 1, dim) + 0.6 * normal(shared, clusters, dim)
    return unit(centres[random.integers(clusters, size=count)] + 0.6 * normal(random, count, dim))


def grown(random, rows, count):
    """Some of the rows, moved by 0.3 of the difference of two others."""
    chosen = random.integers(len(rows), size=(3, count))
    return unit(rows[chosen[0]] + 0.3 * (rows[chosen[1]] - rows[chosen[2]]))


def main():
    random = np.random.default_rng(5)
    if len(sys.argv) < 2:
        for name, rows in (("normal", normal), ("clustered", clustered)):
            parts = (rows(np.random.default_rng(100 + i), PART_ROWS) for i in range(4))
            survivors(name, parts, rows(random, QUERIES))
        return
    memory = Path(sys.argv[1])
    images, captions = (
        np.concatenate([np.load(part) for part in sorted((memory / kind).glob("*.npy"))]).astype(np.float32)
        for kind in ("img_emb", "text_emb")
    )
    by_images = np.unique(images, axis=0)
    by_images = by_images[random.choice(len(by_images), QUERIES, replace=False)]
    by_captions = captions[random.choice(len(captions), QUERIES, replace=False)]
    survivors("images by images", [images], by_images)
    survivors("captions by captions", [captions], by_captions)
    survivors("captions by images", [captions], by_images)
    for name, rows in (("images", images), ("captions", captions)):
        parts = (grown(np.random.default_rng(100 + i), rows, PART_ROWS) for i in range(4))
        survivors(f"grown {name} by images", parts, by_images)


if __name__ == "__main__":
    main()
