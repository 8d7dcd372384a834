#!/usr/bin/env python3
"""Measures a model on held-out scenes, task by task.

usage: evaluate.py MODEL.gguf [--scenes N] [--first SEED] [--gemmule PROGRAM]
needs: MODEL.gguf with the mask decoder (gemmule-quantize models/scenes MODEL.gguf --seg-vae models/scenes/masks.npz)

Asks `gemmule eval`: words by exact match, `detect` and `segment` by how many of the objects are found at IoU 0.5 (recall) and how many of those
that are said to be there are (precision). Prints a Markdown table with 95 % intervals.
"""

import argparse
import json
import math
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy

import drawing
import tasks

REPOSITORY = Path(__file__).resolve().parents[2]


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


def draw_rows(folder, first, count):
    rows = defaultdict(list)
    for seed in range(first, first + count):
        scene = drawing.draw(seed, held_out=True)
        scene.picture.save(folder / f"{seed}.png")
        for kind, prompt, answer in tasks.tasks(scene, 4, lambda thing: ""):
            row = {"image": f"{seed}.png", "prompt": prompt, "suffix": answer, "kind": kind}
            if kind == "segment":
                row["objects"] = objects(scene, prompt)
            rows[kind if kind in ("detect", "segment") else "words"].append(row)
    return rows


def evaluate(program, model, folder, name, rows, metric):
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = subprocess.run([program, "eval", data, "--metric", metric, "-m", model, "--json"], stdout=subprocess.PIPE, check=True)
    found = json.loads(run.stdout)
    return found["measures"], found["models"][0]["rows"]


def share(right, count):
    """A share with Wilson's interval, in percent."""
    z, p = 1.96, right / count
    middle = (p + z * z / 2 / count) / (1 + z * z / count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / 4 / count / count) / (1 + z * z / count)
    return f"{100 * p:.1f} [{100 * (middle - half):.1f}, {100 * (middle + half):.1f}]"


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
        rows = draw_rows(folder, options.first, options.scenes)
        _, answers = evaluate(options.gemmule, options.model, folder, "words", rows["words"], "exact")
        right = defaultdict(list)
        for row, answer in zip(rows["words"], answers):
            right[row["kind"]].append(answer["parts"][0][0])
        for kind, scores in sorted(right.items()):
            print(f"| {kind} | exact match | {len(scores)} | {share(sum(scores), len(scores))} |")
        for kind, metric in (("detect", "boxes"), ("segment", "masks")):
            measures, _ = evaluate(options.gemmule, options.model, folder, kind, rows[kind], metric)
            for measure in measures[:3]:
                value, low, high = (100 * measure["values"][0][key] for key in ("value", "low", "high"))
                print(f"| {kind} | {measure['name']} | {len(rows[kind])} | {value:.1f} [{low:.1f}, {high:.1f}] |")


if __name__ == "__main__":
    main()
