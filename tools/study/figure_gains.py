"""The picture of docs/method.md: what every task of table_report.py gained over zero-shot.

    python3 table_report.py INPUTS report MODEL… | python3 figure_gains.py > docs/gains.svg
"""
import sys

GROUPS = [("memory knows the subject", lambda s: s.startswith(("fashion-pairs/fashion", "tiny200-pairs/tiny", "demo"))), ("Flickr8k as memory", lambda s: s.startswith("flickr8k")),
          ("memory of another subject", lambda s: True)]
METHODS = [("xmore", "#c77700", -8), ("xmore-kernel", "#0f8a5f", 8)]
WIDTH, LEFT, RIGHT, ROW, LOW, HIGH = 760, 190, 20, 56, -10, 40

tasks = []
for line in sys.stdin:
    cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    if len(cells) == 8 and cells[2].isdigit():
        tasks.append((cells[1], {"xmore": float(cells[4]), "xmore-kernel": float(cells[6])}))
groups = {name: [] for name, _ in GROUPS}
for name, gains in tasks:
    groups[next(group for group, has in GROUPS if has(name))].append(gains)

x = lambda value: LEFT + (WIDTH - LEFT - RIGHT) * (min(max(value, LOW), HIGH) - LOW) / (HIGH - LOW)
height = 34 + ROW * len(groups) + 44
out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">', f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>']
for tick in range(LOW, HIGH + 1, 10):
    out.append(f'<line x1="{x(tick):.0f}" x2="{x(tick):.0f}" y1="30" y2="{height - 40}" stroke="{"#1b1f24" if tick == 0 else "#d8dee4"}"/>')
    out.append(f'<text x="{x(tick):.0f}" y="{height - 24}" text-anchor="middle" fill="#57606a">{tick:+d}</text>')
out.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{height - 6}" text-anchor="middle" fill="#57606a">points of top-1 over zero-shot; a dot a task, a bar the mean</text>')
for i, (method, color, _) in enumerate(METHODS):
    out.append(f'<circle cx="{LEFT + 8 + 120 * i}" cy="14" r="5" fill="{color}"/><text x="{LEFT + 18 + 120 * i}" y="19">{method}</text>')
for i, (group, found) in enumerate(groups.items()):
    middle = 34 + ROW * i + ROW / 2
    out.append(f'<text x="8" y="{middle + 4:.0f}">{group} ({len(found)})</text>')
    for method, color, offset in METHODS:
        values = [gains[method] for gains in found]
        out += [f'<circle cx="{x(v):.1f}" cy="{middle + offset:.0f}" r="4" fill="{color}" fill-opacity=".45"/>' for v in values]
        mean = x(sum(values) / len(values))
        out.append(f'<line x1="{mean:.1f}" x2="{mean:.1f}" y1="{middle + offset - 8:.0f}" y2="{middle + offset + 8:.0f}" stroke="{color}" stroke-width="3"/>')
print("\n".join([*out, "</svg>"]))
