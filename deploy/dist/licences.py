#!/usr/bin/env python3
"""Prints the licence texts of what is linked into the program, each text once, with the crates that carry it.

usage: licences.py TARGET OWN_LICENCE   (in the folder of Cargo.toml)

The texts are the crates' own files, word for word: names and years in them matter. Whether a licence may be linked is judged by
`cargo deny`. A crate without a file is given under Apache-2.0, our own text, where it may be; else this fails.
"""
import json
import pathlib
import re
import subprocess
import sys

FILES = re.compile(r"^(un)?(licen[cs]e|copying|copyright|notice)", re.IGNORECASE)


def linked(metadata):
    """The packages behind normal dependencies, from the program down."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, left = set(), [metadata["resolve"]["root"]]
    while left:
        package = left.pop()
        for dependency in nodes[package]["deps"]:
            normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if normal and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                left.append(dependency["pkg"])
    return [package for package in metadata["packages"] if package["id"] in found]


def main(target, own):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    texts = {}
    for package in linked(metadata):
        name = f"{package['name']} {package['version']} ({package['license']})"
        folder = pathlib.Path(package["manifest_path"]).parent
        files = sorted(file for file in folder.iterdir() if file.is_file() and FILES.match(file.name))
        if not files and "Apache-2.0" in (package["license"] or ""):
            files = [pathlib.Path(own)]
        if not files:
            sys.exit(f"licences: {name} has no licence file, and its licence is not ours")
        for file in files:
            text = file.read_text(encoding="utf-8", errors="replace").strip("\n").replace("\r\n", "\n")
            key = " ".join(text.split())
            texts.setdefault(key, (text, set()))[1].add(name)
    print("pg2planhat is licensed under Apache-2.0 (LICENSE). These libraries are linked into it, under these licences.")
    for text, crates in sorted(texts.values(), key=lambda one: (sorted(one[1]), one[0])):
        print("\n" + "=" * 100)
        print("\n".join(sorted(crates)))
        print("-" * 100 + "\n")
        print(text)


main(*sys.argv[1:])
