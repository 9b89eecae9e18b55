#!/usr/bin/env python3
"""Makes imagenet_classes.txt from two wheels: make_imagenet_classes.py TIMM.whl OPEN_CLIP_TORCH.whl

    pip download --no-deps timm==1.0.31 open_clip_torch==3.3.0
"""
import pathlib, sys, zipfile

timm, open_clip = map(pathlib.Path, sys.argv[1:])
assert timm.name.startswith("timm-1.0.31-"), timm
assert open_clip.name.startswith("open_clip_torch-3.3.0-"), open_clip

with zipfile.ZipFile(timm) as wheel:
    def ids(name):
        return wheel.read(f"timm/data/_info/imagenet{name}_synsets.txt").decode().split()
    all_ids, in_a, in_r = ids(""), set(ids("_a")), set(ids("_r"))
metadata = {}
with zipfile.ZipFile(open_clip) as wheel:
    exec(wheel.read("open_clip/zero_shot_metadata.py"), metadata)
names = metadata["IMAGENET_CLASSNAMES"]
assert len(all_ids) == len(names) == 1000 and all_ids == sorted(all_ids)
assert len(in_a) == len(in_r) == 200 and in_a | in_r <= set(all_ids)

lines = [
    "# ImageNet-1k: WordNet id; whether it is a class of ImageNet-A (a) or ImageNet-R (r); name.",
    "# Ids and subsets: timm 1.0.31 (Apache-2.0), timm/data/_info/imagenet{,_a,_r}_synsets.txt. "
    "Names: open_clip_torch 3.3.0 (MIT), zero_shot_metadata.py.",
    "# Made by make_imagenet_classes.py.",
]
for wnid, name in zip(all_ids, names):
    subsets = ("a" if wnid in in_a else "") + ("r" if wnid in in_r else "")
    lines.append(f"{wnid} {subsets or '-'} {name}")
pathlib.Path(__file__).with_name("imagenet_classes.txt").write_text("\n".join(lines) + "\n")
