#!/usr/bin/env python3
"""Measures a model on held-out scenes, task by task.

usage: evaluate.py MODEL.gguf [--scenes N] [--first SEED] [--gemmule PROGRAM]
needs: MODEL.gguf with the mask decoder (gemmule-quantize models/scenes MODEL.gguf --seg-vae models/scenes/masks.npz)

Asks `gemmule eval`: words by exact match, `detect` and `segment` by how many of the objects are found at IoU 0.5 (recall) and how many of those
that are said to be there are (precision). Prints a Markdown table with 95 % intervals.
"""

import argparse
import json
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy

import drawing
import rows
import tasks

REPOSITORY = Path(__file__).resolve().parents[2]
# Of kinds whose answers are not compared as words.
METRICS = {"detect": "boxes", "segment": "masks"}


def counts(mask):
    """COCO's compressed runs of a mask: lengths of runs down the columns, as differences to those two before, in letters of five bits."""
    flat = numpy.concatenate([[0], mask.T.reshape(-1).astype(numpy.int8), [-1]])
    runs = numpy.diff(numpy.flatnonzero(numpy.diff(flat)), prepend=0).tolist()
    text = []
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        while True:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text.append(chr((bits | (32 if more else 0)) + 48))
            if not more:
                break
    return "".join(text)


def objects(scene, prompt):
    """What a prompt of `segment` asks for."""
    side = drawing.SIDE
    phrase = prompt.removeprefix("segment ")
    return [{"label": phrase, "mask": {"size": [side, side], "counts": counts(thing.mask)}} for thing in tasks.matching(scene, phrase)]


def draw_rows(folder, first, scenes):
    """Rows by their kind."""
    kinds = defaultdict(list)
    for scene, drawn in rows.draw(folder, first, scenes, 4):
        for row in drawn:
            # `gemmule eval` takes boxes from a suffix.
            row["suffix"] = row.pop("answer")
            if row["kind"] == "segment":
                row["objects"] = objects(scene, row["prompt"])
            kinds[row["kind"]].append(row)
    return kinds


def evaluate(program, model, data, metric):
    run = subprocess.run([program, "eval", data, "--metric", metric, "-m", model, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(run.stdout)["measures"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--gemmule", type=Path, default=REPOSITORY / "target" / "release" / "gemmule")
    options = parser.parse_args()
    print("| task | measure | rows | % |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for kind, drawn in sorted(draw_rows(folder, options.first, options.scenes).items()):
            data = folder / f"{kind}.jsonl"
            data.write_text("".join(json.dumps(row) + "\n" for row in drawn))
            for measure in evaluate(options.gemmule, options.model, data, METRICS.get(kind, "exact"))[:3]:
                value, low, high = (100 * measure["values"][0][key] for key in ("value", "low", "high"))
                print(f"| {kind} | {measure['name']} | {len(drawn)} | {value:.1f} [{low:.1f}, {high:.1f}] |", flush=True)


if __name__ == "__main__":
    main()
