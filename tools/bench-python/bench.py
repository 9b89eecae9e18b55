"""The Python package beside the library and the command line tool, interleaved.

    cargo build --release -p bench-python -p xmore-cli && pip install .
    python tools/bench-python/bench.py FOLDER [--memory MEMORY]

1. One image: the median time of `classify(bytes)` in Python, of the same call of the library, in turns, and the median difference.
2. Many images: images a second of `Model.encode_image` on files, and of `xmore embed`, both with start and model loading, and their ratio.
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy

import xmore

#: Calls of one in a row, of which the median counts, before the other's turn.
BLOCK = 20
RELEASE = Path(__file__).parents[2] / "target/release"
ENCODE = """
import sys, numpy, xmore
paths = open(sys.argv[3]).read().splitlines()
numpy.save(sys.argv[2], xmore.Model(sys.argv[1]).encode_image(paths))
"""


def one_image(arguments: argparse.Namespace, image: Path) -> None:
    words = [RELEASE / "bench-python", image, "--model", arguments.model, "--labels", arguments.labels]
    words += ["--calls", BLOCK, *(["--memory", arguments.memory] if arguments.memory else [])]
    library = subprocess.Popen(
        [str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert library.stdin is not None and library.stdout is not None
    classify = xmore.Classifier(arguments.model, arguments.labels, arguments.memory)
    data = image.read_bytes()
    classify(data)
    ours, theirs = [], []
    for _ in range(arguments.calls // BLOCK):
        library.stdin.write("\n")
        library.stdin.flush()
        theirs.append(float(library.stdout.readline()))
        seconds = []
        for _ in range(BLOCK):
            start = time.perf_counter()
            classify(data)
            seconds.append(time.perf_counter() - start)
        ours.append(statistics.median(seconds))
    library.stdin.close()
    library.wait()
    for who, seconds in [("Python", ours), ("the library", theirs)]:
        print(
            f"one image in {who}: {1e3 * statistics.median(seconds):.3f} ms, least {1e3 * min(seconds):.3f}"
        )
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    print(f"median difference: {1e3 * statistics.median(differences):+.3f} ms")


def many_images(arguments: argparse.Namespace, images: list[Path]) -> None:
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "images.txt")
        listed.write_text("\n".join(map(str, images)) + "\n")
        python = [sys.executable, "-c", ENCODE, arguments.model, f"{folder}/python.npy", str(listed)]
        tool = [
            str(RELEASE / "xmore"),
            "embed",
            *map(str, images),
            "-o",
            f"{folder}/tool.npy",
            "--model",
            arguments.model,
        ]
        for _ in range(arguments.rounds):
            rates = []
            for words in (python, tool):
                start = time.perf_counter()
                subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
                rates.append(len(images) / (time.perf_counter() - start))
            ratios.append(rates[0] / rates[1])
            print(
                f"{len(images)} files: {rates[0]:.1f} a second in Python, {rates[1]:.1f} by the tool",
                flush=True,
            )
        rows = [numpy.load(Path(folder, name)) for name in ("python.npy", "tool.npy")]
    print(f"median ratio: {statistics.median(ratios):.3f}; the same rows: {numpy.array_equal(*rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, help="folder of images, which are named again until there are enough"
    )
    parser.add_argument("--model", default="lite")
    parser.add_argument("--memory")
    parser.add_argument("--labels", default="cat,dog,bird,car,tree,house,boat,flower,person,food")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    found = sorted(
        path for path in arguments.folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"}
    )
    if not found:
        parser.error(f"{arguments.folder}: expected .jpg or .png files, found none")
    one_image(arguments, found[0])
    many_images(arguments, list(itertools.islice(itertools.cycle(found), arguments.images)))


if __name__ == "__main__":
    main()
