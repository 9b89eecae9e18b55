#!/usr/bin/env python3
"""PyTorch from JPEG files to embeddings as the peer of bench-gpu's `files`: torch's DataLoader on all cores, transformers' CLIP in float16, compiled.

    peers_files.py MODEL_DIR FOLDER [--images 20000] [--seconds 5] [--workers 16] [--batch 256] [--mode default]

MODEL_DIR is a transformers folder as `peers.py weights` makes it. The transform is open_clip's own (`image_transform`) where it is installed, else the same
of torchvision with Pillow. A line of JSON: images per second, reading included.
"""
import argparse, json, os, time

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def transform(size):
    try:
        from open_clip import image_transform
        return image_transform(size, is_train=False, mean=MEAN, std=STD), "open_clip"
    except ImportError:
        from torchvision import transforms as t
        steps = [t.Resize(size, interpolation=t.InterpolationMode.BICUBIC), t.CenterCrop(size), lambda image: image.convert("RGB")]
        return t.Compose([*steps, t.ToTensor(), t.Normalize(MEAN, STD)]), "torchvision"


class Files:
    def __init__(self, files, count, transform):
        self.files, self.count, self.transform = files, count, transform

    def __len__(self):
        return self.count

    def __getitem__(self, n):
        from PIL import Image
        with Image.open(self.files[n % len(self.files)]) as image:
            return self.transform(image)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("folder")
    p.add_argument("--images", type=int, default=20_000)
    p.add_argument("--seconds", type=float, default=5.0)
    p.add_argument("--workers", type=int, default=16)
    p.add_argument("--batch", type=int, default=256)
    p.add_argument("--mode", default="default", help="of torch.compile, or eager")
    a = p.parse_args()
    import torch, transformers
    files = sorted(os.path.join(a.folder, f) for f in os.listdir(a.folder) if f.endswith((".jpg", ".jpeg")))
    model = transformers.CLIPModel.from_pretrained(a.model, attn_implementation="sdpa").eval().to("cuda", torch.float16)
    size = model.config.vision_config.image_size
    prepare, whose = transform(size)

    def tower(x):
        features = model.visual_projection(model.vision_model(pixel_values=x).pooler_output)
        return torch.nn.functional.normalize(features.float(), dim=-1)

    run = tower if a.mode == "eager" else torch.compile(tower, mode=a.mode, dynamic=False)

    def loader(count):
        # Whole batches, so that nothing is compiled for a last one.
        count -= count % a.batch
        options = dict(batch_size=a.batch, num_workers=a.workers, pin_memory=True)
        if a.workers:
            options |= dict(prefetch_factor=4, persistent_workers=True)
        return torch.utils.data.DataLoader(Files(files, count, prepare), **options)

    def encode(batches):
        done = []
        for batch in batches:
            done.append(run(batch.to("cuda", non_blocking=True).half()))
        rows = torch.cat(done).cpu()
        assert rows.isfinite().all()
        return len(rows)

    with torch.inference_mode():
        batches = loader(a.images)
        # Workers are started, kernels compiled, files in the page cache.
        encode(batches)
        images, start = 0, time.perf_counter()
        while time.perf_counter() - start < a.seconds:
            images += encode(batches)
        seconds = time.perf_counter() - start
    print(json.dumps({
        "peer": f"torch {torch.__version__}, transformers {transformers.__version__}, {whose}'s transform, {a.workers} workers, {a.mode}",
        "device": torch.cuda.get_device_name(), "model": os.path.basename(os.path.normpath(a.model)), "precision": "f16",
        "files": len(files), "images": images, "seconds": seconds, "per_second": images / seconds,
    }))


if __name__ == "__main__":
    main()
