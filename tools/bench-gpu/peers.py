#!/usr/bin/env python3
"""PyTorch on a GPU as bench-gpu's peer: a process for each way to run it, a line of JSON in, a line of JSON out.

    peers.py worker MODE                 MODE: eager, or a mode of torch.compile (default, reduce-overhead, max-autotune-no-cudagraphs)
    peers.py weights ARCH DIR            random weights of a published architecture, as a transformers folder

{"op": "prepare", "model": DIR, "kind": "images", "batch": 256, "input": FILE of f32 [batch, 3, size, size], "type": "float16"} -> {"ready": true}
{"op": "prepare", "model": DIR, "kind": "texts", "ids": [[...], ...], "length": 77, "type": "float16"}                          -> {"ready": true}
{"op": "run", "repeats": 10}   -> {"ms": [...]}: passes with inputs and results on the GPU, each waited for
{"op": "output"}               -> {"rows": [[...], ...]}: unit embeddings
"""
import json, sys, time

ARCHITECTURES = {
    "ViT-B-32": dict(vision=(768, 12, 12, 3072, 32), text=(512, 12, 8, 2048), dim=512),
    "ViT-B-16": dict(vision=(768, 12, 12, 3072, 16), text=(512, 12, 8, 2048), dim=512),
    "ViT-L-14": dict(vision=(1024, 24, 16, 4096, 14), text=(768, 12, 12, 3072), dim=768),
}


def weights(arch, folder):
    import torch, transformers
    torch.manual_seed(7)
    a = ARCHITECTURES[arch]
    width, layers, heads, inner, patch = a["vision"]
    vision = dict(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner, patch_size=patch, image_size=224)
    width, layers, heads, inner = a["text"]
    text = dict(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner, eos_token_id=49407)
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=a["dim"])
    transformers.CLIPModel(config).save_pretrained(folder)


class Worker:
    def __init__(self, mode):
        self.mode = mode

    def prepare(self, r):
        import numpy as np, torch, transformers
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        self.torch = torch
        kind = getattr(torch, r["type"])
        model = transformers.CLIPModel.from_pretrained(r["model"], attn_implementation="sdpa").eval().to("cuda", kind)
        if r["kind"] == "images":
            size = model.config.vision_config.image_size
            pixels = np.fromfile(r["input"], dtype=np.float32).reshape(r["batch"], 3, size, size)
            self.x = torch.from_numpy(pixels).to("cuda", kind)
            tower = lambda x: model.visual_projection(model.vision_model(pixel_values=x).pooler_output)
        else:
            ids = torch.full((len(r["ids"]), r["length"]), 49407, dtype=torch.long)
            for n, row in enumerate(r["ids"]):
                ids[n, : len(row)] = torch.tensor(row)
            self.x = ids.to("cuda")
            tower = lambda x: model.text_projection(model.text_model(input_ids=x).pooler_output)
        tower = lambda x, tower=tower: torch.nn.functional.normalize(tower(x).float(), dim=-1)
        self.tower = tower if self.mode == "eager" else torch.compile(tower, mode=self.mode, dynamic=False)
        with torch.inference_mode():
            for _ in range(3):
                self.tower(self.x)
            torch.cuda.synchronize()
        return {"ready": True, "version": f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.cuda.get_device_name()}"}

    def run(self, r):
        times = []
        with self.torch.inference_mode():
            for _ in range(r["repeats"]):
                start = time.perf_counter()
                self.tower(self.x)
                self.torch.cuda.synchronize()
                times.append((time.perf_counter() - start) * 1e3)
        return {"ms": times}

    def output(self, r):
        with self.torch.inference_mode():
            return {"rows": self.tower(self.x).cpu().tolist()}


def main():
    if sys.argv[1] == "weights":
        return weights(*sys.argv[2:])
    worker = Worker(sys.argv[2])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request["op"])(request)
        except Exception as error:  # told to the benchmark, which leaves this peer out of the row
            answer = {"failed": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
