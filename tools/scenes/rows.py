#!/usr/bin/env python3
"""Draws held-out scenes and writes rows about them, as `gemmule batch`, `eval`, `calibrate` and `compare` read them.

usage: rows.py OUT.jsonl --first SEED --scenes N [--tasks N]

The pictures go into a folder beside OUT.jsonl that has its name. Prompts of `segment` are left out: their answers are codes, not words.
"""

import argparse
import json
from pathlib import Path

import drawing
import tasks


def draw(folder, first, scenes, count):
    """Draws held-out scenes into a folder; each scene with its rows, whose pictures are named relative to the folder."""
    for seed in range(first, first + scenes):
        scene = drawing.draw(seed, held_out=True)
        scene.picture.save(folder / f"{seed}.png")
        found = tasks.tasks(scene, count, lambda thing: "")
        yield scene, [{"image": f"{seed}.png", "prompt": prompt, "answer": answer, "kind": kind} for kind, prompt, answer in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--first", type=int, required=True, help="seed of the first scene; each has the next one")
    parser.add_argument("--scenes", type=int, required=True)
    parser.add_argument("--tasks", type=int, default=4, help="of a scene, at most")
    options = parser.parse_args()
    folder = options.out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for _, drawn in draw(folder, options.first, options.scenes, options.tasks) for row in drawn if row["kind"] != "segment"]
    for row in rows:
        row["image"] = f"{folder.name}/{row['image']}"
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{len(rows)} rows")


if __name__ == "__main__":
    main()
