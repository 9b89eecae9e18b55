"""Writes architectures.tsv and pretrained.tsv: which names of open_clip's this program knows, and what they stand for.

    python3 make_table.py        (in an environment with open_clip_torch; it asserts the version)

architectures.tsv: architecture, embed_dim, image_size, reason it is refused (empty where it is supported)
pretrained.tsv:    architecture, tag, hub repository, file in it (empty: the default names), quick_gelu, plain
"plain" says that the preprocessing is CLIP's own (mean, std, bicubic, short side, crop), so that weights without their configuration
can be used too. Names with -quickgelu are left out: they are the same weights, and the tag tells the activation.
"""

import json
from pathlib import Path

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.pretrained import _PRETRAINED

assert open_clip.__version__ == "3.3.0", open_clip.__version__

SUFFIX = "-quickgelu"
# What the CLIP architecture itself has; any other key means another architecture.
MODEL_KEYS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
VISION_KEYS = {"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size"}
TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}


def refusal(name, config):
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "coca" in name.lower() or "multimodal_cfg" in config:
        return "it is a CoCa model"
    if "SigLIP" in name or "siglip" in name:
        return "it is a SigLIP model"
    if "timm_model_name" in vision:
        return f"its image tower is timm's {vision['timm_model_name']}"
    if "hf_model_name" in text:
        return f"its text tower is {text['hf_model_name']}"
    if "hf_tokenizer_name" in text:
        return f"its tokenizer is that of {text['hf_tokenizer_name']}"
    other = (config.keys() - MODEL_KEYS) | (vision.keys() - VISION_KEYS) | (text.keys() - TEXT_KEYS)
    return f"it differs from CLIP in {', '.join(sorted(other))}" if other else ""


def plain(entry):
    return (
        tuple(entry["mean"]) == tuple(OPENAI_DATASET_MEAN)
        and tuple(entry["std"]) == tuple(OPENAI_DATASET_STD)
        and entry["interpolation"] == "bicubic"
        and entry["resize_mode"] == "shortest"
    )


configs = {
    path.stem: json.loads(path.read_text())
    for path in (Path(open_clip.__file__).parent / "model_configs").glob("*.json")
}
architectures = ["# architecture\tembed_dim\timage_size\trefused: made by make_table.py from open_clip 3.3.0"]
pretrained = ["# architecture\ttag\trepository\tfile\tquick_gelu\tplain: made by make_table.py from open_clip 3.3.0"]
for name in sorted(configs):
    if name.endswith(SUFFIX):
        continue
    config = configs[name]
    why = refusal(name, config)
    size = config["vision_cfg"]["image_size"]
    assert isinstance(size, int), (name, size)
    architectures.append("\t".join([name, str(config["embed_dim"]), str(size), why]))
    if why:
        continue
    for tag, entry in _PRETRAINED.get(name, {}).items():
        if not entry["hf_hub"]:
            continue
        repository, _, file = entry["hf_hub"].rpartition("/")
        quick_gelu = str(entry.get("quick_gelu", False)).lower()
        pretrained.append("\t".join([name, tag, repository, file, quick_gelu, str(plain(entry)).lower()]))

here = Path(__file__).parent
(here / "architectures.tsv").write_text("\n".join(architectures) + "\n")
(here / "pretrained.tsv").write_text("\n".join(pretrained) + "\n")
