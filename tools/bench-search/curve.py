#!/usr/bin/env python3
"""Draws docs/search-curve.svg from the JSON of bench-search: curve.py RESULTS.json > docs/search-curve.svg

    cargo run --release -p bench-search -- --python python3 --rows 10000,100000,1000000,3000000,10000000 \
        --peers faiss-flat --format json > RESULTS.json
"""
import json, math, statistics, sys

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 420, 70, 50, 20, 190
COLOURS = {"codes": "#1a6fb5", "f16 scan": "#7a7a7a", "faiss-flat": "#c1440e"}


def points(results):
    """(engine, batch) -> [(rows, ms a query)]"""
    lines = {}
    for row in results["rows"]:
        for entry in row["entries"]:
            if entry["ms"]:
                median = statistics.median(entry["ms"]) / row["batch"]
                lines.setdefault((entry["name"], row["batch"]), []).append((row["rows"], median))
    return {key: sorted(line) for key, line in lines.items()}


def main():
    lines = points(json.load(open(sys.argv[1])))
    xs = [x for line in lines.values() for x, _ in line]
    ys = [y for line in lines.values() for _, y in line]
    x0, x1 = math.floor(math.log10(min(xs))), math.ceil(math.log10(max(xs)))
    y0, y1 = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    px = lambda x: LEFT + (math.log10(x) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
    py = lambda y: HEIGHT - BOTTOM - (math.log10(y) - y0) / (y1 - y0) * (HEIGHT - BOTTOM - TOP)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for e in range(x0, x1 + 1):
        out.append(f'<line x1="{px(10**e):.1f}" x2="{px(10**e):.1f}" y1="{TOP}" y2="{HEIGHT-BOTTOM}" stroke="#ddd"/>'
                   f'<text x="{px(10**e):.1f}" y="{HEIGHT-BOTTOM+18}" text-anchor="middle">{10**e:,}</text>')
    for e in range(y0, y1 + 1):
        out.append(f'<line x1="{LEFT}" x2="{WIDTH-RIGHT}" y1="{py(10**e):.1f}" y2="{py(10**e):.1f}" stroke="#ddd"/>'
                   f'<text x="{LEFT-6}" y="{py(10**e)+4:.1f}" text-anchor="end">{10**e:g} ms</text>')
    out.append(f'<text x="{(LEFT+WIDTH-RIGHT)/2}" y="{HEIGHT-10}" text-anchor="middle">rows of 512 values, top 128, 2 threads</text>')
    # Labels are moved apart where lines end close to each other.
    ends = sorted(((py(line[-1][1]), key) for key, line in lines.items()))
    free = 0
    for y, key in ends:
        name, batch = key
        line = lines[key]
        dash = "" if batch == 1 else ' stroke-dasharray="6 4"'
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in line)
        color = COLOURS.get(name, "#444")
        out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')
        free = max(y + 4, free)
        out.append(f'<text x="{px(line[-1][0])+8:.1f}" y="{free:.1f}" fill="{color}">{name}, {"one query" if batch == 1 else f"each of {batch}"}</text>')
        free += 14
    print("\n".join(out + ["</svg>"]))


main()
