#!/usr/bin/env python3
"""The bundled model's accuracy on the whole easy-VQA test split, as `gemmule eval` measures it in several types, and how many
answers are those of transformers in float32.

usage: evaluate.py [--checkpoint DIR] [--skip-transformers] [--rows DIR] NAME=MODEL.gguf ...
needs: cargo build --release

Prints a Markdown table: exact match of the 9,673 questions, and the recall of `detect SHAPE` on the pictures at IoU 0.5, with
95 % intervals. --rows keeps the rows for `gemmule eval` in a directory.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import torch

import bundled
import easy_vqa_data as data

REPOSITORY = Path(__file__).resolve().parents[2]


def write_rows(folder):
    """questions.jsonl and boxes.jsonl for `gemmule eval`; returns the requests in the same order."""
    pictures, questions = data.load("test")
    asked = [{"image": pictures[image].path, "prompt": f"answer en {question}", "answer": answer} for question, answer, image in questions]
    detected = [{"image": picture.path, "prompt": f"detect {picture.shape}", "objects": [{"label": picture.shape, "box": picture.box}]}
                for picture in pictures.values()]
    for name, rows in [("questions", asked), ("boxes", detected)]:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [(row["image"], row["prompt"]) for row in asked + detected]


def evaluate(folder, model):
    """Exact match and recall with their intervals, and the answers."""
    results = []
    for rows, metric in [("questions", "exact"), ("boxes", "boxes")]:
        program = REPOSITORY / "target" / "release" / "gemmule"
        command = [program, "eval", folder / f"{rows}.jsonl", "--metric", metric, "-m", model, "-n", "24", "--json"]
        results.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    values = [result["measures"][0]["values"][0] for result in results]
    return values, [row["text"] for result in results for row in result["models"][0]["rows"]]


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=REPOSITORY / "models" / "easy-vqa")
    parser.add_argument("--skip-transformers", action="store_true")
    parser.add_argument("--rows", type=Path, help="keep the rows here")
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL.gguf")
    options = parser.parse_args()
    folder = options.rows or Path(tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    lines = write_rows(folder)
    reference = None if options.skip_transformers else answer_with_transformers(options.checkpoint, lines)
    print("| run | exact match of the questions | recall of boxes at IoU 0.5 | same answers as transformers |")
    print("|---|---|---|---|")
    percent = lambda value: f"{value['value']:.2%} ({value['low']:.2%} … {value['high']:.2%})"
    for entry in options.models:
        name, model = entry.split("=", 1)
        values, answers = evaluate(folder, model)
        same = f"{sum(a == b for a, b in zip(answers, reference)) / len(answers):.2%}" if reference else ""
        print(f"| {name} | {percent(values[0])} | {percent(values[1])} | {same} |")


if __name__ == "__main__":
    main()
