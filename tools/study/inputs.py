"""Makes the folder that the tables read, with the xmore binary: a memory, embeddings of images, captions and prompts, lists of files.

    python3 inputs.py OUT --flickr8k flickr8k/captions.csv --sets imagenette160 cifar10 flowers5 --labeled100 DIR --stamps DIR

--sets: folders with one sub-folder a class. --labeled100: a folder with labels.csv (file, label). --stamps: the pictures that
`xmore demo` fetches ($XMORE_HOME or the platform's cache folder, data/tuxpaint-stamps).
"""
import argparse
import csv
import json
import re
import subprocess
from pathlib import Path

from label_sets import REPOSITORY, label_sets


def classes(folder):
    """[file below the folder, its path, label], sorted, and the labels."""
    labels = sorted(d.name for d in folder.iterdir() if d.is_dir())
    files = [(f"{label}/{f.name}", f, label) for label in labels for f in sorted((folder / label).iterdir())]
    return files, labels


def labeled(folder):
    rows = [(file, folder / file, label) for file, label in csv.reader((folder / "labels.csv").open(encoding="utf-8"))]
    return rows, sorted({label for _, _, label in rows})


def stamps(folder):
    """The demo's pictures, in its order: [file, path, label], labels, captions."""
    source = (REPOSITORY / "crates/xmore/src/fetch/stamps/labels.rs").read_text(encoding="utf-8")
    table = lambda name: re.search(name + r": .*?= \[(.*?)\n\];", source, re.S).group(1)
    labels = re.findall(r'\("([^"]+)", "([^"]+)"\)', table("LABELS"))
    drawn = re.findall(r'"([^"]+)"', table("NOT_PHOTOS"))
    found = []
    for below, label in labels:
        for picture in (folder / below).glob("*.png"):
            text, name = picture.with_suffix(".txt"), f"{below}/{picture.name}"
            if name in drawn or not text.exists():
                continue
            caption = text.read_bytes()[:4096].decode("utf-8-sig", "replace").split("\n")[0].strip()
            if caption:
                found.append((name, picture, label, caption))
    found.sort(key=lambda stamp: stamp[0].split("/"))
    return [stamp[:3] for stamp in found], [label for _, label in labels], [stamp[3] for stamp in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--xmore", default="xmore", help="the binary")
    for name in ("flickr8k", "labeled100", "stamps"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--sets", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    def xmore(*words):
        subprocess.run([args.xmore, *map(str, words)], check=True)

    def embed(name, files):
        xmore("embed", "--model", "lite", "--output", args.out / f"{name}.npy", *files)

    def embed_texts(name, texts):
        (args.out / f"{name}.txt").write_text("".join(text + "\n" for text in texts), encoding="utf-8")
        xmore("embed", "--model", "lite", "--output", args.out / f"{name}.npy", "--texts", args.out / f"{name}.txt")

    xmore("memory", "build", args.flickr8k, "--model", "lite", "--output", args.out / "flickr8k")
    *stamp_files, stamp_captions = stamps(args.stamps)
    found = {folder.name: classes(folder) for folder in args.sets}
    found |= {"labeled100": labeled(args.labeled100), "stamps": stamp_files}
    sets, files = label_sets(), {}
    for name, (images, labels) in found.items():
        embed(name, [path for _, path, _ in images])
        sets[name], files[name] = labels, [[file, label] for file, _, label in images]
    embed_texts("stamp_captions", stamp_captions)
    embed_texts("prompts", [f"a photo of a {label}." for labels in sets.values() for label in labels])
    (args.out / "sets.json").write_text(json.dumps({"labels": sets, "files": files}, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
