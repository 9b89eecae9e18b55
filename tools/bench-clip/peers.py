#!/usr/bin/env python3
"""The other engines of bench-clip: one process each, a line of JSON in, a line of JSON out.

    peers.py PEER --cache DIR --threads N      PEER: one of PEERS below
    peers.py weights ARCH --cache DIR          random weights of a published architecture, as an open_clip folder

{"op": "prepare", "row": ROW} -> {"ready": true, "version": "...", "precision": "f32"} or {"not_run": "why"}
{"op": "run"}                 -> {"ms": 12.3}
{"op": "output"}              -> {"rows": [[...], ...]}, unit embeddings

ROW: {"arch": "ViT-B-16", "kind": "images", "batch": 8, "input": FILE of f32 [batch, 3, size, size]}
  or {"arch": "ViT-B-16", "kind": "texts", "texts": [...], "cut": true}: cut to the batch's longest text instead of 77 tokens.
Only the run itself is timed: not reading the input, not the tokens.
"""
import argparse, io, json, os, pathlib, sys, time

import numpy as np


def open_clip_model(cache, arch, precision="fp32"):
    import open_clip
    import torch
    model = open_clip.create_model(f"local-dir:{cache / arch}", precision=precision).eval()
    for p in model.parameters():
        p.requires_grad_(False)
    return torch, open_clip, model


def inputs(torch, open_clip, model, row):
    """What the tower takes."""
    if row["kind"] == "texts":
        tokens = open_clip.tokenize(row["texts"])
        return tokens[:, : int(tokens.argmax(1).max()) + 1] if row["cut"] else tokens
    size = model.visual.image_size
    size = size[0] if isinstance(size, tuple) else size
    return torch.from_numpy(np.fromfile(row["input"], dtype=np.float32).reshape(row["batch"], 3, size, size))


def shorten(torch, model, x, row):
    """open_clip's text tower takes texts of its full length only: a shorter copy of its positions and its mask takes cut ones."""
    if row["kind"] == "texts":
        n = x.shape[1]
        model.positional_embedding = torch.nn.Parameter(model.positional_embedding[:n].clone(), requires_grad=False)
        model.attn_mask = model.attn_mask[:n, :n].clone()


class Tower:
    """The tower of a row as one module."""

    def __new__(cls, torch, model, row):
        class Wrapped(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model if row["kind"] == "texts" else model.visual

            def forward(self, x):
                return self.model.encode_text(x) if row["kind"] == "texts" else self.model(x)
        return Wrapped().eval()


class Torch:
    precision = "f32"

    def __init__(self, args):
        self.args = args

    def prepare(self, row):
        names = {"f32": "fp32", "bf16": "pure_bf16"}
        torch, open_clip, model = open_clip_model(self.args.cache, row["arch"], names[self.precision])
        torch.set_num_threads(self.args.threads)
        self.torch, self.tower, self.x = torch, Tower(torch, model, row), inputs(torch, open_clip, model, row)
        shorten(torch, model, self.x, row)
        if row["kind"] == "images":
            self.x = self.x.to(next(model.parameters()).dtype)
        return f"torch {torch.__version__}, open_clip {open_clip.__version__}"

    def run(self):
        with self.torch.inference_mode():
            return self.tower(self.x)

    def output(self):
        return self.run().float().numpy()


class TorchBf16(Torch):
    precision = "bf16"


def onnx_graph(args, row):
    """The tower of a row as a file, its input, and what PyTorch computes of it."""
    torch, open_clip, model = open_clip_model(args.cache, row["arch"])
    torch.set_num_threads(args.threads)
    tower, x = Tower(torch, model, row), inputs(torch, open_clip, model, row)
    shorten(torch, model, x, row)
    # A text graph is exported at its length: the causal mask is a constant of that size.
    name = row["arch"] + (f"-text{x.shape[1]}" if row["kind"] == "texts" else "-image")
    path = args.cache / f"{name}.onnx"
    if not path.exists():
        print(f"exporting {path.name}", file=sys.stderr)
        torch.backends.mha.set_fastpath_enabled(False)  # a fused operator that ONNX has not
        example = x[:2] if len(x) > 1 else torch.cat([x, x])
        torch.onnx.export(tower, (example,), str(path.with_suffix(".tmp")), input_names=["x"], output_names=["y"],
                          dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}}, opset_version=17, dynamo=False)
        path.with_suffix(".tmp").rename(path)
    with torch.inference_mode():
        return path, x.numpy(), tower(x).numpy()


def check_graph(found, want):
    error = np.abs(found - want).max() / np.abs(want).max()
    if not error < 1e-3:
        raise RuntimeError(f"the exported graph differs from torch by {error:.1e}")


class Onnxruntime:
    precision = "f32"

    def __init__(self, args):
        self.args = args

    def prepare(self, row):
        import onnxruntime
        path, x, want = onnx_graph(self.args, row)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.args.threads, 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.feed = {"x": x}
        check_graph(self.run(), want)
        return f"onnxruntime {onnxruntime.__version__}"

    def run(self):
        return self.session.run(None, self.feed)[0]

    output = run


class Openvino:
    """OpenVINO in the precision that it chooses by itself, which is bf16 where the processor has instructions for it."""

    hint = {}

    def __init__(self, args):
        self.args = args

    def prepare(self, row):
        try:
            import openvino
        except ImportError as e:
            raise LookupError(f"not installed ({e})")
        path, self.x, want = onnx_graph(self.args, row)
        core = openvino.Core()
        model = core.read_model(str(path))
        model.reshape(list(self.x.shape))  # static shapes are its fastest
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": self.args.threads, "NUM_STREAMS": 1}
        compiled = core.compile_model(model, "CPU", settings | self.hint)
        self.request = compiled.create_infer_request()
        chosen = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
        self.precision = next((ours for ours, theirs in [("bf16", "bf"), ("f32", "32"), ("f16", "f16")] if theirs in chosen.lower()), chosen)
        if self.precision == "f32":
            check_graph(self.run(), want)
        return f"openvino {openvino.__version__.split('-')[0]}"

    def run(self):
        return self.request.infer({0: self.x}, share_inputs=True)[0]

    def output(self):
        return self.run().copy()


class OpenvinoF32(Openvino):
    hint = {"INFERENCE_PRECISION_HINT": "f32"}


def transformers_model(torch, model, cfg):
    """The weights of an open_clip ViT as transformers' CLIPModel."""
    import transformers
    vision, text = cfg["vision_cfg"], cfg["text_cfg"]
    act = "quick_gelu" if cfg.get("quick_gelu") else "gelu"
    part = lambda c, heads: dict(hidden_size=c["width"], num_hidden_layers=c["layers"], num_attention_heads=heads, hidden_act=act,
                                 intermediate_size=c["width"] * 4, projection_dim=cfg["embed_dim"])
    config = transformers.CLIPConfig(
        text_config=part(text, text["heads"]) | dict(eos_token_id=49407, bos_token_id=49406),
        vision_config=part(vision, vision["width"] // vision.get("head_width", 64)) | dict(
            image_size=vision["image_size"], patch_size=vision["patch_size"]), projection_dim=cfg["embed_dim"])
    config._attn_implementation = "sdpa"
    names = [("visual.class_embedding", "vision_model.embeddings.class_embedding"),
             ("visual.conv1", "vision_model.embeddings.patch_embedding"),
             ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
             ("visual.ln_pre", "vision_model.pre_layrnorm"), ("visual.ln_post", "vision_model.post_layernorm"),
             ("visual.transformer.resblocks", "vision_model.encoder.layers"), ("visual.proj", "visual_projection.weight"),
             ("token_embedding", "text_model.embeddings.token_embedding"),
             ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
             ("ln_final", "text_model.final_layer_norm"), ("text_projection", "text_projection.weight"),
             ("transformer.resblocks", "text_model.encoder.layers")]
    inner = [("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
             ("attn.", "self_attn.")]
    weights = {}
    for name, value in model.state_dict().items():
        value = value.T.contiguous() if name in ("visual.proj", "text_projection") else value
        old, new = next(((o, n) for o, n in names if name.startswith(o)), ("", ""))
        to = new + name[len(old):]
        for a, b in inner:
            to = to.replace(a, b)
        if "in_proj_" in to:
            for which, rows in zip("qkv", value.chunk(3)):
                weights[to.replace("in_proj_", which + "_proj.")] = rows.contiguous()
        elif name != "attn_mask":
            weights[to] = value
    clip = transformers.CLIPModel(config).eval()
    missing, unexpected = clip.load_state_dict(weights, strict=False)
    if unexpected or any(not m.endswith("position_ids") for m in missing):
        raise RuntimeError(f"weights do not fit: {missing[:3]} {unexpected[:3]}")
    return clip


def config_of(cache, arch):
    return json.loads((cache / arch / "open_clip_config.json").read_text())["model_cfg"]


class Transformers:
    precision = "f32"

    def __init__(self, args):
        self.args = args

    def prepare(self, row):
        cfg = config_of(self.args.cache, row["arch"])
        if not isinstance(cfg["vision_cfg"].get("layers"), int):
            raise LookupError("not a CLIP of transformers'")
        torch, open_clip, model = open_clip_model(self.args.cache, row["arch"])
        import transformers
        torch.set_num_threads(self.args.threads)
        self.torch, self.x, self.texts = torch, inputs(torch, open_clip, model, row), row["kind"] == "texts"
        self.clip = transformers_model(torch, model, cfg)
        return f"transformers {transformers.__version__} (sdpa)"

    def run(self):
        with self.torch.inference_mode():
            if self.texts:
                return self.clip.text_projection(self.clip.text_model(input_ids=self.x).pooler_output)
            return self.clip.visual_projection(self.clip.vision_model(pixel_values=self.x).pooler_output)

    def output(self):
        return self.run().numpy()


class FasterClip:
    """PyPI's faster-clip 0.4: an int8 engine of ViT-B/32's image tower; its texts go through another model's tower."""

    precision = "int8"

    def __init__(self, args):
        self.args = args

    def prepare(self, row):
        if (row["arch"], row["kind"]) != ("ViT-B-32", "images"):
            raise LookupError("it knows ViT-B/32's image tower only (its text tower is a multilingual DistilBERT)")
        os.environ["FASTER_CLIP_CACHE"] = str(self.args.cache / "faster-clip")
        os.environ["RAYON_NUM_THREADS"] = str(self.args.threads)
        try:
            import faster_clip
        except ImportError as e:
            raise LookupError(f"not installed ({e})")
        path = self.args.cache / "faster-clip/sentence-transformers__clip-ViT-B-32/0_CLIPModel/model.safetensors"
        if not path.exists():
            from safetensors.torch import save_file
            torch, _, model = open_clip_model(self.args.cache, row["arch"])
            clip = transformers_model(torch, model, config_of(self.args.cache, row["arch"]))
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)
        # It takes files: uncompressed ones of the tower's size, to be decoded in no time, with other pixels than the other peers'.
        from PIL import Image
        pixels = np.random.default_rng(1).integers(0, 256, (row["batch"], 224, 224, 3), dtype=np.uint8)
        self.files = []
        for one in pixels:
            file = io.BytesIO()
            Image.fromarray(one).save(file, "BMP")
            self.files.append(file.getvalue())
        self.model = faster_clip.ClipModel()
        return f"faster-clip {faster_clip.__version__} (int8 weights)"

    def run(self):
        return self.model.encode_image(self.files)

    def output(self):
        raise LookupError("other pixels")


def weights(arch, cache):
    import open_clip
    import torch
    from safetensors.torch import save_file
    torch.manual_seed(1)
    cfg = open_clip.get_model_config(arch)
    model = open_clip.create_model(arch, pretrained=None)
    for m in model.modules():  # at its default, a ResNet's blocks are switched off
        if isinstance(m, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(m.weight, 0.5, 1.0)
    folder = cache / arch
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    # of no weight here: images are given as numbers
    preprocess = dict(mean=list(open_clip.OPENAI_DATASET_MEAN), std=list(open_clip.OPENAI_DATASET_STD))
    (folder / "open_clip_config.json").write_text(json.dumps(dict(model_cfg=cfg, preprocess_cfg=preprocess), indent=1))


PEERS = {"onnxruntime": Onnxruntime, "openvino-f32": OpenvinoF32, "openvino": Openvino, "torch": Torch, "torch-bf16": TorchBf16,
         "transformers": Transformers, "faster-clip": FasterClip}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=[*PEERS, "weights"])
    parser.add_argument("arch", nargs="?")
    parser.add_argument("--cache", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.peer == "weights":
        return weights(args.arch, args.cache)
    # Libraries may print; the protocol has the real standard output to itself.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = PEERS[args.peer](args)
    for line in sys.stdin:
        request, answer = json.loads(line), {}
        try:
            if request["op"] == "prepare":
                peer = PEERS[args.peer](args)  # lets go of the last row's model first
                version = peer.prepare(request["row"])
                for _ in range(2):
                    peer.run()
                answer = {"ready": True, "version": version, "precision": peer.precision}
            elif request["op"] == "run":
                start = time.perf_counter()
                peer.run()
                answer = {"ms": (time.perf_counter() - start) * 1e3}
            else:
                rows = np.asarray(peer.output(), dtype=np.float64)
                answer = {"rows": (rows / np.linalg.norm(rows, axis=1, keepdims=True)).tolist()}
        except LookupError as e:
            answer = {"not_run": str(e)}
        except Exception as e:
            answer = {"not_run": f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
