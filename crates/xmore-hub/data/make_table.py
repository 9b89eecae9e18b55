"""Writes families.tsv, architectures.tsv and pretrained.tsv: the names of open_clip's that this program knows, and which of them it reads.

    python3 make_table.py        (in an environment with open_clip_torch; it asserts the version)

families.tsv:      family, why it is not read (empty where it is)
architectures.tsv: architecture, embed_dim, image_size, family
pretrained.tsv:    architecture, tag, hub repository, file in it (empty: the default names), quick_gelu, twice, plain, license (empty: unknown)
"quick_gelu" is the activation: the tag's, or that of the architecture's configuration. "twice" says that open_clip lists these weights a second
time, below the architecture's name with -quickgelu; the second has no row of its own. "plain" says that they are of CLIP's own architecture and preprocessing
(mean, std, bicubic, short side, crop), so that weights without their configuration can be used too.

To have a family read, empty its reason in FAMILIES and run this again.
"""

import json
from pathlib import Path

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.pretrained import _PRETRAINED

assert open_clip.__version__ == "3.3.0", open_clip.__version__

# Every family of open_clip's table, and why it is not read: empty where it is.
FAMILIES = {
    "clip": "",
    "siglip": "",
    "siglip2": "",
    "metaclip2": "",
    "clipa": "",
    "mobileclip": "",
    "pe-core": "",
    "roberta": "",
    "xlm-r": "",
    "eva02": "",
    "eva02-e": "",
    "eva01": "",
    "convnext": "",
    "fastvit": "",
    "vitamin": "ViTamin is not implemented",
    "coca": "",
    "nllb": "",
    "mt5": "its text tower, mT5's encoder, is not implemented",
    "layerscale": "a ViT with LayerScale is not implemented",
    "timm": "its image tower of timm's is not implemented",
}
# The start of timm's name of an image tower: the family.
TIMM = {
    "vit_base_mci_224": "mobileclip",
    "vit_large_patch14_clip_224": "mobileclip",
    "vit_pe_core_": "pe-core",
    "eva02_enormous_": "eva02-e",
    "eva02_": "eva02",
    "eva_giant_": "eva01",
    "convnext_": "convnext",
    "fastvit_": "fastvit",
    "vitamin_": "vitamin",
    "": "timm",
}
# Part of the name of transformers' text tower: the family.
TEXT = {"nllb": "nllb", "xlm-roberta": "xlm-r", "roberta": "roberta", "mt5": "mt5"}

# The start of a repository's name: the license. A repository that no row fits has an unknown one. From:
# [timm] the `license` of timm 1.0.31's configuration of that name; [card] the repository's card on the hub; [docs] docs/PRETRAINED.md of open_clip.
LICENSES = [
    ("timm/resnet", "mit"),  # timm
    ("timm/vit_base_patch32_clip_224.openai", "apache-2.0"),  # timm, card
    ("timm/vit_base_patch16_clip_224.openai", "apache-2.0"),  # timm, card
    ("timm/vit_large_patch14_clip_224.openai", "apache-2.0"),  # timm
    ("timm/vit_large_patch14_clip_336.openai", "apache-2.0"),  # timm
    ("timm/vit_base_patch32_clip_224.laion400m_e32", "mit"),  # timm
    ("timm/vit_base_patch16_clip_224.laion400m_e32", "mit"),  # timm
    ("timm/vit_large_patch14_clip_224.laion400m_e32", "mit"),  # timm
    ("timm/vit_base_patch32_clip_224.metaclip", "cc-by-nc-4.0"),  # timm, docs
    ("timm/vit_base_patch16_clip_224.metaclip", "cc-by-nc-4.0"),  # timm, docs
    ("timm/vit_large_patch14_clip_224.metaclip", "cc-by-nc-4.0"),  # timm, docs
    ("timm/vit_huge_patch14_clip_224.metaclip", "cc-by-nc-4.0"),  # timm, docs
    ("timm/vit_huge_patch14_clip_378.metaclip", "cc-by-nc-4.0"),  # timm
    ("timm/vit_gigantic_patch14_clip_224.metaclip", "cc-by-nc-4.0"),  # timm, docs
    ("timm/vit_gigantic_patch14_clip_378.metaclip", "cc-by-nc-4.0"),  # timm
    ("timm/eva", "mit"),  # docs
    ("timm/ViT-", "apache-2.0"),  # docs and card: SigLIP, SigLIP 2
    ("timm/PE-Core-", "apache-2.0"),  # card
    ("timm/MobileCLIP2-", "apple-amlr"),  # timm, and LICENSE_MODELS of github.com/apple/ml-mobileclip
    ("apple/MobileCLIP-", "apple-amlr"),  # timm, and LICENSE_weights_data there
    ("apple/DFN", "apple-amlr"),  # card
    ("laion/", "mit"),  # card
    ("UCSC-VLAA/", "apache-2.0"),  # docs
    ("jienengchen/ViTamin-", "mit"),  # card
    ("visheratin/nllb-clip-", "cc-by-nc-4.0"),  # docs, card
    ("visheratin/nllb-siglip-mrl-base", "mit"),  # card
]

SUFFIX = "-quickgelu"
# What the CLIP architecture itself has; any other key means another architecture.
MODEL_KEYS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
VISION_KEYS = {"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size"}
TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}


def family(name, config):
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "multimodal_cfg" in config:
        return "coca"
    for part, found in TEXT.items():
        if part in text.get("hf_model_name", ""):
            return found
    timm = vision.get("timm_model_name")
    if timm and "_siglip_" in timm:
        return "siglip2" if "SigLIP2" in name else "siglip"
    if timm:
        return next(found for start, found in TIMM.items() if timm.startswith(start))
    match text.get("hf_tokenizer_name"):
        case "facebook/xlm-v-base" | "google/mt5-base":
            return "metaclip2"
        case "bert-base-uncased":
            return "clipa"
    other = (config.keys() - MODEL_KEYS) | (vision.keys() - VISION_KEYS) | (text.keys() - TEXT_KEYS)
    if other == {"ls_init_value"}:
        return "layerscale"
    assert not other, (name, other)
    return "clip"


def plain(family, entry):
    return (
        family == "clip"
        and tuple(entry["mean"]) == tuple(OPENAI_DATASET_MEAN)
        and tuple(entry["std"]) == tuple(OPENAI_DATASET_STD)
        and entry["interpolation"] == "bicubic"
        and entry["resize_mode"] == "shortest"
    )


def license_of(repository):
    return next((found for start, found in LICENSES if repository.startswith(start)), "")


def write(name, columns, rows):
    head = "# " + "\t".join(columns) + ": made by make_table.py from open_clip 3.3.0"
    lines = [head, *("\t".join(row) for row in rows)]
    (Path(__file__).parent / name).write_text("\n".join(lines) + "\n")


configs = {
    path.stem: json.loads(path.read_text())
    for path in (Path(open_clip.__file__).parent / "model_configs").glob("*.json")
}
architectures, pretrained, pairs = [], [], 0
for name in sorted(configs):
    if name.endswith(SUFFIX):
        continue
    config = configs[name]
    size = config["vision_cfg"]["image_size"]
    assert isinstance(size, int), (name, size)
    kind = family(name, config)
    architectures.append([name, str(config["embed_dim"]), str(size), kind])
    again = _PRETRAINED.get(name + SUFFIX, {})
    for tag, entry in _PRETRAINED.get(name, {}).items():
        repository, _, file = entry["hf_hub"].rpartition("/")
        quick_gelu = entry.get("quick_gelu", False)
        twice = tag in again
        assert twice == quick_gelu and again.get(tag, entry) == entry, (name, tag)
        pairs += 1 + twice
        flags = (quick_gelu or config.get("quick_gelu", False), twice, plain(kind, entry))
        flags = [str(flag).lower() for flag in flags]
        pretrained.append([name, tag, repository, file, *flags, license_of(repository)])
assert pairs == sum(map(len, _PRETRAINED.values())) == 196, pairs
assert {row[3] for row in architectures} == FAMILIES.keys()

write("families.tsv", ["family", "why it is not read"], FAMILIES.items())
write("architectures.tsv", ["architecture", "embed_dim", "image_size", "family"], architectures)
columns = ["architecture", "tag", "repository", "file", "quick_gelu", "twice", "plain", "license"]
write("pretrained.tsv", columns, pretrained)
