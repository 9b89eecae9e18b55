#!/usr/bin/env python3
"""Exact search by PyTorch, `matmul` and `topk` of float16 on a GPU: what the example gpu_search of xmore-memory is compared with.

    peer_search.py [ROWS=10000000] [DIM=512] [N=128]

A line of JSON for 1, 64 and 1,024 queries: the median of 9 searches, rows and queries on the GPU, results left there.
"""
import json, statistics, sys, time

import torch


def main():
    rows, dim, n = (int(a) if len(sys.argv) > i + 1 else d for i, (a, d) in enumerate(zip(sys.argv[1:] + [""] * 3, (10_000_000, 512, 128))))
    torch.manual_seed(7)
    unit = lambda count: torch.nn.functional.normalize(torch.randn(count, dim, device="cuda"), dim=-1).half()
    data = torch.cat([unit(min(1_000_000, rows - first)) for first in range(0, rows, 1_000_000)])
    for count in (1, 64, 1024):
        queries = unit(count)
        times = []
        for _ in range(12):
            torch.cuda.synchronize()
            start = time.perf_counter()
            torch.topk(queries @ data.T, n, dim=-1)
            torch.cuda.synchronize()
            times.append((time.perf_counter() - start) * 1e3)
        print(json.dumps({"rows": rows, "queries": count, "n": n, "median_ms": statistics.median(times[3:]), "gpu": torch.cuda.get_device_name()}), flush=True)


if __name__ == "__main__":
    main()
