"""ECE before and after a calibration, on photos that it was not fitted on: the table of docs/cli.md.

    python3 table_calibration.py MEMORY SET… [--xmore PATH] [--model lite]

A SET is a folder with a sub-folder a class. Half of its photos, by the hash of `class/file`, are measured on; of the other half 20, 100 and 500 are
fitted on, as many of each class, those of the smallest hashes.
"""
import argparse
import hashlib
import json
import subprocess
import tempfile
from pathlib import Path

METHODS = ("zero-shot", "xmore", "xmore-kernel")
COUNTS = (20, 100, 500)


def digest(file):
    return hashlib.sha256(f"{file.parent.name}/{file.name}".encode()).digest()


def linked(folder, files):
    """A folder with links to the photos, a sub-folder a class."""
    for file in files:
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / file.parent.name / file.name).symlink_to(file)
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("memory", type=Path)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--xmore", default="xmore", help="the binary")
    parser.add_argument("--model", default="lite")
    args = parser.parse_args()

    def measured(folder, *more):
        words = [args.xmore, "eval", folder, "--memory", args.memory, "--model", args.model, "--methods", ",".join(METHODS), "--format", "json", *more]
        run = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True)
        return {entry["method"]: entry for entry in json.loads(run.stdout)}

    print("| set, method | before | " + " | ".join(f"{count} photos" for count in COUNTS) + " |")
    print("|---|---|" + "---|" * len(COUNTS))
    for folder in args.sets:
        classes = [sorted(sub.iterdir(), key=digest) for sub in sorted(folder.resolve().iterdir()) if sub.is_dir()]
        rest = [file for files in classes for file in files if digest(file)[0] & 1]
        fitted = [[file for file in files if not digest(file)[0] & 1] for files in classes]
        figures = {method: [] for method in METHODS}
        with tempfile.TemporaryDirectory() as scratch:
            scratch = Path(scratch)
            asked = linked(scratch / f"{folder.name}-rest", rest)
            for count in COUNTS:
                of_each = count // len(classes)
                photos = linked(scratch / f"{folder.name}-{count}", [file for files in fitted for file in files[:of_each]])
                calibration = scratch / f"{count}.json"
                measured(photos, "--fit", calibration)
                for method, entry in measured(asked, "--calibration", calibration).items():
                    figures[method].append(entry["details"]["calibrated"])
        for method, each in figures.items():
            eces = [each[0]["before"]["ece"], *(one["after"]["ece"] for one in each)]
            print(f"| {folder.name}, {method} | " + " | ".join(f"{100 * ece:.2f}" for ece in eces) + " |", flush=True)


if __name__ == "__main__":
    main()
