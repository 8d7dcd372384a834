#!/usr/bin/env python3
"""What quantization changes in the distribution of the first answer token, on the whole easy-VQA test split.

usage: divergence.py REFERENCE.gguf NAME=MODEL.gguf ...
needs: cargo build --release --example next_token_logits; the packages easy-vqa, numpy

Prints a Markdown table: mean and 99th percentile of KL(reference || model) in nats, and how often both choose the same token.
"""

import subprocess
import sys
from pathlib import Path

import numpy

import easy_vqa_data as data

REPOSITORY = Path(__file__).resolve().parents[2]


def log_probabilities(model, text, count):
    program = REPOSITORY / "target" / "release" / "examples" / "next_token_logits"
    run = subprocess.run([program, model], input=text.encode(), capture_output=True, check=True)
    logits = numpy.frombuffer(run.stdout, dtype="<f4").reshape(count, -1).astype(numpy.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - numpy.log(numpy.exp(logits).sum(axis=1, keepdims=True))


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    pictures, questions = data.load("test")
    text = "".join(f"{pictures[image].path}\tanswer en {question}\n" for question, _, image in questions)
    reference = log_probabilities(sys.argv[1], text, len(questions))
    print(f"| weights | mean KL | 99th percentile | same first token of {len(questions)} |\n|---|---|---|---|")
    for entry in sys.argv[2:]:
        name, model = entry.split("=", 1)
        other = log_probabilities(model, text, len(questions))
        divergence = (numpy.exp(reference) * (reference - other)).sum(axis=1)
        same = (reference.argmax(axis=1) == other.argmax(axis=1)).mean()
        print(f"| {name} | {divergence.mean():.2e} | {numpy.quantile(divergence, 0.99):.2e} | {same:.2%} |", flush=True)


if __name__ == "__main__":
    main()
