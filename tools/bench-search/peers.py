#!/usr/bin/env python3
"""The other libraries of bench-search: one process each, a line of JSON in, a line of JSON out.

    peers.py PEER --threads N      PEER: faiss-flat, faiss-sq-fp16 or usearch

{"op": "prepare", "data": DATA}             -> {"version": "..."} or {"not_run": "why"}
{"op": "run", "first": 0, "count": 64}      -> {"ms": 12.3, "ids": [[...], ...]}

DATA: {"rows": FILE of float16 [count, dim], "count": ..., "dim": ..., "queries": FILE of f32 [q, dim], "n": 128, "cache": DIR}
Only the search itself is timed.
"""
import argparse, json, os, pathlib, sys, time

import numpy as np


def load(data, start=0, stop=None):
    """Some rows as f32, which is what the libraries take."""
    stop = min(stop or data["count"], data["count"])
    rows = np.memmap(data["rows"], dtype=np.float16, mode="r", shape=(data["count"], data["dim"]))
    return np.ascontiguousarray(rows[start:stop], dtype=np.float32)


class Faiss:
    def __init__(self, threads, name):
        import faiss
        self.faiss, self.name = faiss, name
        faiss.omp_set_num_threads(threads)
        # Version 1.15 multiplies batches by loops of its own up to 128,000 queries, which takes three times as long here as BLAS, which
        # it used from 20 queries on before. The faster one is compared with.
        faiss.cvar.distance_compute_blas_threshold = 20

    def prepare(self, data):
        faiss, dim = self.faiss, data["dim"]
        if self.name == "faiss-flat":
            self.index = faiss.IndexFlatIP(dim)
        else:
            self.index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
            self.index.train(load(data, 0, 1000))
        step = 1 << 18
        for start in range(0, data["count"], step):
            self.index.add(load(data, start, start + step))
        return f"faiss {faiss.__version__}"

    def search(self, queries, n):
        return self.index.search(queries, n)[1]


class Usearch:
    """HNSW with usearch's defaults, f16; built once and kept in the cache."""

    def __init__(self, threads, name):
        self.threads = threads

    def prepare(self, data):
        import usearch
        from usearch.index import Index
        self.index = Index(ndim=data["dim"], metric="ip", dtype="f16")
        rows = pathlib.Path(data["rows"])
        path = pathlib.Path(data["cache"]) / f"{rows.stem}-{data['count']}.usearch"
        note = ""
        if path.exists() and path.stat().st_mtime >= rows.stat().st_mtime:
            self.index.load(str(path))
        else:
            start, step = time.perf_counter(), 1 << 17
            for first in range(0, data["count"], step):
                block = load(data, first, first + step)
                self.index.add(np.arange(first, first + len(block), dtype=np.uint64), block, threads=self.threads)
            note = f", built in {time.perf_counter() - start:.0f} s"
            self.index.save(str(path))
        return f"usearch {usearch.__version__} (HNSW, f16, defaults{note})"

    def search(self, queries, n):
        keys = self.index.search(queries, n, threads=self.threads).keys
        return np.atleast_2d(keys)


PEERS = {"faiss-flat": Faiss, "faiss-sq-fp16": Faiss, "usearch": Usearch}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    # Libraries may print; the protocol has the real standard output to itself.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request, answer = json.loads(line), {}
        try:
            if request["op"] == "prepare":
                data = request["data"]
                peer = PEERS[args.peer](args.threads, args.peer)
                answer = {"version": peer.prepare(data)}
                queries = np.fromfile(data["queries"], dtype=np.float32).reshape(-1, data["dim"])
                for count in (1, len(queries)):
                    peer.search(queries[:count], data["n"])
            else:
                some = queries[request["first"] : request["first"] + request["count"]]
                start = time.perf_counter()
                ids = peer.search(some, data["n"])
                ms = (time.perf_counter() - start) * 1e3
                answer = {"ms": ms, "ids": [[int(i) for i in row if i >= 0] for row in ids]}
        except Exception as e:
            answer = {"not_run": f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
