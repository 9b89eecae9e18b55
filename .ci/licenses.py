"""Compares the licenses of all crates that are used with the list in deny.toml, from `cargo metadata` alone.

For machines without cargo-deny. An expression is met if one of its alternatives has allowed licenses only.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOKEN = re.compile(r"\(|\)|[A-Za-z0-9.+-]+")


def alternatives(expression):
    """The sets of licenses that an SPDX expression lets its user choose between."""
    tokens = TOKEN.findall(expression.replace("/", " OR "))
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def one():
        if peek() in (None, "OR", "AND", "WITH", ")"):
            raise ValueError("a license is missing")
        name = take()
        if name == "(":
            inner = any_of()
            if peek() != ")":
                raise ValueError("a parenthesis is not closed")
            take()
            return inner
        if peek() == "WITH":
            take()
            name = f"{name} WITH {one_name()}"
        return [frozenset([name])]

    def one_name():
        if peek() is None:
            raise ValueError("an exception is missing")
        return take()

    def all_of():
        sets = one()
        while peek() == "AND":
            take()
            right = one()
            sets = [a | b for a in sets for b in right]
        return sets

    def any_of():
        sets = all_of()
        while peek() == "OR":
            take()
            sets = sets + all_of()
        return sets

    found = any_of()
    if peek() is not None:
        raise ValueError(f"unexpected {peek()}")
    return found


def main():
    allowed = frozenset(tomllib.loads((ROOT / "deny.toml").read_text())["licenses"]["allow"])
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--all-features"]
    packages = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    refused = []
    for package in packages:
        license = package["license"]
        try:
            met = license is not None and any(choice <= allowed for choice in alternatives(license))
        except ValueError as error:
            met, license = False, f"{license} ({error})"
        if not met:
            refused.append(f"{package['name']} {package['version']}: {license or 'no license field'}")
    for line in refused:
        print(line, file=sys.stderr)
    if refused:
        sys.exit(f"{len(refused)} of {len(packages)} crates have licenses that deny.toml does not allow")
    print(f"{len(packages)} crates: all licenses are allowed by deny.toml")


if __name__ == "__main__":
    main()
