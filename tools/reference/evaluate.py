#!/usr/bin/env python3
"""The bundled model's accuracy on the whole easy-VQA test split: transformers in float32 and gemmule in several types.

usage: evaluate.py [--checkpoint DIR] [--skip-transformers] NAME=MODEL.gguf ...
needs: cargo build --release --example answer_many

Prints a Markdown table: exact match of the 9,673 questions, and the share of pictures whose box (`detect SHAPE`) overlaps
the true one with IoU of at least 0.5.
"""

import argparse
import json
import subprocess
from pathlib import Path

import torch

import bundled
import easy_vqa_data as data

REPOSITORY = Path(__file__).resolve().parents[2]


def requests():
    pictures, questions = data.load("test")
    asked = [(pictures[image].path, f"answer en {question}") for question, _, image in questions]
    detected = [(picture.path, f"detect {picture.shape}") for picture in pictures.values()]
    return pictures, questions, asked + detected


def answer_with_gemmule(model, lines):
    program = REPOSITORY / "target" / "release" / "examples" / "answer_many"
    text = "".join(f"{path}\t{prompt}\n" for path, prompt in lines)
    run = subprocess.run([program, model], input=text, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


@torch.no_grad()
def answer_with_transformers(checkpoint, lines):
    from PIL import Image
    from tokenizers import Tokenizer
    from transformers import PaliGemmaForConditionalGeneration
    from train import pixel_values
    import numpy

    model = PaliGemmaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    image_tokens = [model.config.image_token_id] * (bundled.IMAGE_SIZE // bundled.PATCH_SIZE) ** 2
    encoded = [image_tokens + tokenizer.encode(prompt + "\n").ids for _, prompt in lines]
    answers = [""] * len(lines)
    # Batches of one length need no padding.
    by_length = {}
    for index, ids in enumerate(encoded):
        by_length.setdefault(len(ids), []).append(index)
    for indices in by_length.values():
        for start in range(0, len(indices), 128):
            batch = indices[start:start + 128]
            pixels = pixel_values([numpy.asarray(Image.open(lines[i][0]).convert("RGB")) for i in batch])
            ids = torch.tensor([encoded[i] for i in batch])
            kinds = torch.zeros_like(ids)
            state = model(input_ids=ids, pixel_values=pixels, token_type_ids=kinds, attention_mask=torch.ones_like(ids), use_cache=True)
            tokens = []
            for step in range(24):
                tokens.append(state.logits[:, -1, :tokenizer.get_vocab_size()].argmax(-1))
                if all((torch.stack(tokens) == bundled.EOS).any(0)):
                    break
                length = ids.shape[1] + step + 1
                state = model(input_ids=tokens[-1][:, None], past_key_values=state.past_key_values, use_cache=True,
                              attention_mask=torch.ones(len(batch), length, dtype=torch.long),
                              position_ids=torch.full((len(batch), 1), length))
            for row, i in enumerate(batch):
                sequence = [int(step[row]) for step in tokens]
                sequence = sequence[:sequence.index(bundled.EOS)] if bundled.EOS in sequence else sequence
                answers[i] = tokenizer.decode(sequence, skip_special_tokens=False)
    return answers


def score(pictures, questions, answers):
    right = sum(answer == text for (_, answer, _), text in zip(questions, answers))
    found = 0
    for picture, text in zip(pictures.values(), answers[len(questions):]):
        true = tuple(value / data.SIDE for value in picture.box)
        boxes = data.parse_boxes(text)
        found += len(boxes) == 1 and boxes[0][1] == picture.shape and data.intersection_over_union(boxes[0][0], true) >= 0.5
    return right / len(questions), found / len(pictures)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=REPOSITORY / "models" / "easy-vqa")
    parser.add_argument("--skip-transformers", action="store_true")
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL.gguf")
    options = parser.parse_args()
    pictures, questions, lines = requests()
    results = {}
    for entry in options.models:
        name, model = entry.split("=", 1)
        results[f"gemmule {name}"] = answer_with_gemmule(model, lines)
    if not options.skip_transformers:
        results["transformers float32"] = answer_with_transformers(options.checkpoint, lines)
    reference = results.get("transformers float32")
    print(f"| run | exact match of {len(questions)} questions | box IoU >= 0.5 of {len(pictures)} | same answers as transformers |")
    print("|---|---|---|---|")
    for name, answers in results.items():
        exact, boxes = score(pictures, questions, answers)
        same = sum(a == b for a, b in zip(answers, reference)) / len(answers) if reference else float("nan")
        print(f"| {name} | {exact:.2%} | {boxes:.2%} | {same:.2%} |")


if __name__ == "__main__":
    main()
