#!/usr/bin/env python3
"""Train the bundled model on easy-VQA and write it as a Hugging Face checkpoint in bfloat16.

usage: train.py [--out DIR] [--tower-steps N] [--steps N] [--seed N]

First the vision tower alone learns colour, shape and box from linear heads (the part SigLIP's pretraining
plays for PaliGemma), then the whole PaliGemmaForConditionalGeneration learns to answer. Only the train split
is read. Pictures are augmented by moving and mirroring the shape on its background.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy
import torch
from PIL import Image

import bundled
import easy_vqa_data as data

REPOSITORY = Path(__file__).resolve().parents[2]


def move(picture, generator):
    """The picture with its shape elsewhere, mirrored half of the time; and the new box."""
    x_min, y_min, x_max, y_max = picture.box
    width, height = x_max - x_min, y_max - y_min
    shape = picture.pixels[y_min:y_max, x_min:x_max]
    if generator.random() < 0.5:
        shape = shape[:, ::-1]
    x, y = generator.randint(0, data.SIDE - width), generator.randint(0, data.SIDE - height)
    canvas = numpy.empty_like(picture.pixels)
    canvas[:] = picture.background
    canvas[y:y + height, x:x + width] = shape
    return canvas, (x, y, x + width, y + height)


def pixel_values(arrays):
    size = (bundled.IMAGE_SIZE, bundled.IMAGE_SIZE)
    resized = [numpy.asarray(Image.fromarray(a).resize(size, Image.Resampling.BICUBIC)) for a in arrays]
    return torch.from_numpy(numpy.stack(resized)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def task(picture, box, questions, generator):
    """A prompt and its answer about the picture."""
    kind = generator.random()
    name = f"{picture.colour} {picture.shape}"
    if kind < 0.66:
        question, answer = generator.choice(questions)
        return f"answer en {question}", answer
    if kind < 0.80:
        prompt = generator.choice(("caption en", "cap en", "describe en"))
        return prompt, f"a {name}" + (f" {data.position(box)}" if prompt == "describe en" else "")
    asked = generator.choice((picture.shape, name, generator.choice(data.SHAPES), None))
    if asked is None:
        several = list(data.SHAPES)
        generator.shuffle(several)
        several = several[:generator.randint(2, 3)]
        found = picture.shape if picture.shape in several else ""
        asked = " ; ".join(several)
    else:
        found = asked if picture.shape in asked else ""
    return f"detect {asked}", f"{data.box_tokens(box)} {found}" if found else ""


def collate(batch, tokenizer, image_token_id, image_tokens):
    rows, images = [], []
    for image, prompt, answer in batch:
        prefix = [image_token_id] * image_tokens + tokenizer.encode(prompt + "\n").ids
        suffix = tokenizer.encode(answer, add_special_tokens=False).ids + [bundled.EOS]
        rows.append((prefix, suffix))
        images.append(image)
    length = max(len(p) + len(s) for p, s in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    kinds, mask, labels = torch.ones_like(ids), torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (prefix, suffix) in enumerate(rows):
        end = len(prefix) + len(suffix)
        ids[row, :end] = torch.tensor(prefix + suffix)
        kinds[row, :len(prefix)] = 0
        mask[row, :end] = 1
        labels[row, len(prefix):end] = torch.tensor(suffix)
    return dict(input_ids=ids, token_type_ids=kinds, attention_mask=mask, labels=labels, pixel_values=pixel_values(images))


def schedule(step, steps, peak):
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm))))


def train_tower(model, pictures, steps, generator, log):
    tower, width = model.model.vision_tower, model.config.vision_config.hidden_size
    query = torch.nn.Parameter(torch.randn(width) * 0.02)
    heads = torch.nn.Linear(width, len(data.FILL) + len(data.SHAPES) + 4)
    parameters = [*tower.parameters(), *heads.parameters(), query]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05)
    colours, everything = list(data.FILL), list(pictures.values())
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step, steps, 1.5e-3)
        batch = generator.choices(everything, k=96)
        moved = [move(picture, generator) for picture in batch]
        features = tower(pixel_values([image for image, _ in moved])).last_hidden_state
        weights = (features @ query).softmax(dim=1)
        output = heads((features * weights.unsqueeze(2)).sum(dim=1))
        colour = torch.tensor([colours.index(picture.colour) for picture in batch])
        shape = torch.tensor([data.SHAPES.index(picture.shape) for picture in batch])
        box = torch.tensor([box for _, box in moved]) / data.SIDE
        split = output.split((len(colours), len(data.SHAPES), 4), dim=1)
        entropy = torch.nn.functional.cross_entropy
        loss = entropy(split[0], colour) + entropy(split[1], shape) + 5 * (split[2].sigmoid() - box).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            right = (split[1].argmax(1) == shape).float().mean().item()
            log(stage="tower", step=step, loss=round(loss.item(), 4), shapes_right=round(right, 3))


def train_model(model, pictures, questions, tokenizer, steps, generator, log):
    by_image = {}
    for question, answer, image in questions:
        by_image.setdefault(image, []).append((question, answer))
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=1e-3, betas=(0.9, 0.98))
    image_token_id, numbers = model.config.image_token_id, list(pictures)
    image_tokens = (bundled.IMAGE_SIZE // bundled.PATCH_SIZE) ** 2
    average = None
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step, steps, 1e-3)
        batch = []
        for number in generator.choices(numbers, k=64):
            picture = pictures[number]
            image, box = move(picture, generator) if generator.random() < 0.8 else (picture.pixels, picture.box)
            batch.append((image, *task(picture, box, by_image[number], generator)))
        loss = model(**collate(batch, tokenizer, image_token_id, image_tokens)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        if step % 100 == 0 or step == steps - 1:
            log(stage="model", step=step, loss=round(average, 4))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "models" / "easy-vqa")
    parser.add_argument("--tower-steps", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args()
    from transformers import PaliGemmaForConditionalGeneration

    torch.manual_seed(options.seed)
    generator = random.Random(options.seed)
    pictures, questions = data.load("train")
    assert data.contradictions(pictures, questions) == 0
    texts = [f"answer en {q}\n" for q, _, _ in questions] + [a for _, a, _ in questions]
    for picture in pictures.values():
        texts += [f"caption en a {picture.colour} {picture.shape} {data.position(picture.box)}"] * 3
        texts += [f"detect {picture.shape} ; {picture.colour} {picture.shape}", "describe en segment cap en ocr question"]
    tokenizer = bundled.train_tokenizer(texts)
    bundled.write_tokenizer(tokenizer, options.out)
    bundled.write_preprocessor(options.out, bundled.IMAGE_SIZE, bundled.PATCH_SIZE)
    model = PaliGemmaForConditionalGeneration(bundled.configuration(tokenizer.token_to_id("<image>")))
    start, journal = time.time(), open(options.out / "training_log.jsonl", "w")

    def log(**entry):
        line = json.dumps({**entry, "seconds": round(time.time() - start)})
        print(line, flush=True)
        journal.write(line + "\n")
        journal.flush()

    log(parameters=sum(p.numel() for p in model.parameters()), seed=options.seed, torch=torch.__version__)
    model.train()
    train_tower(model, pictures, options.tower_steps, generator, log)
    train_model(model, pictures, questions, tokenizer, options.steps, generator, log)
    model.eval().to(torch.bfloat16).save_pretrained(options.out)


if __name__ == "__main__":
    main()
