"""Makes one model's folder of inputs for the tables, with the xmore binary: memories, embeddings of images and prompts, lists of files.

    python3 inputs.py OUT/lite --model lite --data DATA --stamps STAMPS [--memory flickr8k=OUT/memory]

DATA has the sets as folders (a folder a class), `labeled100` with labels.csv (file, label), and the pair sets with captions.csv (image_path,
caption); STAMPS are the pictures that `xmore demo` fetches ($XMORE_HOME or the platform's cache folder, data/tuxpaint-stamps).
"""
import argparse
import csv
import json
import re
import subprocess
from pathlib import Path

from label_sets import REPOSITORY, label_sets

SETS = ("imagenette160", "imagenette-more", "cifar10", "cifar10-more", "flowers5", "tiny200", "fashion-queries")
PAIRS = ("flickr8k", "fashion-pairs", "tiny200-pairs")


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
    source = (REPOSITORY / "crates/xmore-cli/src/commands/demo/stamps/labels.rs").read_text(encoding="utf-8")
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
    parser.add_argument("--model", default="lite")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--stamps", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    def xmore(*words):
        subprocess.run([args.xmore, *map(str, words)], check=True)

    def embed(name, *inputs):
        if not (args.out / f"{name}.npy").exists():
            xmore("embed", "--model", args.model, "--output", args.out / f"{name}.npy", *inputs)

    def embed_texts(name, texts):
        listed = args.out / f"{name}.txt"
        listed.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
        (args.out / f"{name}.npy").unlink(missing_ok=True)
        embed(name, "--texts", listed)

    found = {name: classes(args.data / name) for name in SETS}
    *stamp_files, stamp_captions = stamps(args.stamps)
    found |= {"labeled100": labeled(args.data / "parity/labelled100"), "stamps": stamp_files}
    sets, files = {name: labels for name, (_, labels) in found.items()}, {}
    sets |= label_sets(sets)
    for name, (images, _) in found.items():
        embed(name, *[path for _, path, _ in images])
        files[name] = [[file, label] for file, _, label in images]
    embed_texts("stamp_captions", stamp_captions)
    embed_texts("prompts", [f"a photo of a {label}." for labels in sets.values() for label in labels])
    info = json.loads(subprocess.run([args.xmore, "model", "info", args.model, "--format", "json"], check=True, capture_output=True, text=True).stdout)
    (args.out / "sets.json").write_text(json.dumps({"scale": info["logit_scale"], "labels": sets, "files": files}, indent=1, ensure_ascii=False), encoding="utf-8")
    for name in PAIRS:
        if not (args.out / name / "xmore_memory.json").exists():
            xmore("memory", "build", args.data / name / "captions.csv", "--model", args.model, "--output", args.out / name)


if __name__ == "__main__":
    main()
