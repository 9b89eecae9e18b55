"""The Python package beside the library and the command line tool, interleaved.

    cargo build --release -p bench-python -p xmore-cli && pip install .
    python tools/bench-python/bench.py FOLDER [--memory MEMORY]

1. One image: the median time of `classify(bytes)` in Python, of the same call of the library, and the difference.
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

import xmore

RELEASE = Path(__file__).parents[2] / "target/release"
ENCODE = """
import sys, numpy, xmore
paths = open(sys.argv[3]).read().splitlines()
numpy.save(sys.argv[2], xmore.Model(sys.argv[1]).encode_image(paths))
"""


def one_image(arguments: argparse.Namespace, image: Path) -> None:
    words = [RELEASE / "bench-python", image, "--model", arguments.model, "--labels", arguments.labels]
    words += ["--calls", arguments.calls, *(["--memory", arguments.memory] if arguments.memory else [])]
    library = subprocess.Popen(
        [str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert library.stdin is not None and library.stdout is not None
    classify = xmore.Classifier(arguments.model, arguments.labels, arguments.memory)
    data = image.read_bytes()
    classify(data)
    differences = []
    for _ in range(arguments.rounds):
        library.stdin.write("\n")
        library.stdin.flush()
        theirs = float(library.stdout.readline())
        seconds = []
        for _ in range(arguments.calls):
            start = time.perf_counter()
            classify(data)
            seconds.append(time.perf_counter() - start)
        ours = statistics.median(seconds)
        differences.append(ours - theirs)
        print(f"one image: {1e3 * ours:.3f} ms in Python, {1e3 * theirs:.3f} ms in the library", flush=True)
    library.stdin.close()
    library.wait()
    print(f"difference of the medians: {1e3 * statistics.median(differences):+.3f} ms")


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
        same = Path(folder, "python.npy").read_bytes() == Path(folder, "tool.npy").read_bytes()
    print(f"median ratio: {statistics.median(ratios):.3f}; the same bytes: {same}")


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
