#!/usr/bin/env python3
"""Trains the bundled model on drawn scenes, in stages that go on where the last one ended.

usage: train.py tokenizer
       train.py tower|model --minutes N [--state FILE] [--pictures N] [--rate R] [--decay]
       train.py export [--state FILE]

`tokenizer` makes models/scenes' tokenizer and settings. `tower`: the vision tower alone learns kind, colour, box and characters of
each patch. `model`: the whole model learns prompts and answers, the tower's helper heads beside it. Both write their state (weights,
their average, the optimizer's) every ten minutes and go on from it; without a state `model` starts from the checkpoint. `--decay` lets
the rate fall to nothing within the minutes. `export` writes the averaged weights as the checkpoint in bfloat16.
"""

import argparse
import json
import math
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch.nn import functional
from torch.utils.data import DataLoader

import drawing
import model as shape
import targets
import tasks
import words
from model import bundled
from tasks import LOCATIONS

FOLDER = Path(__file__).resolve().parents[2] / "models" / "scenes"


def make_tokenizer():
    """Texts that training will see, each word of the list in the ways that it is printed."""
    texts = []
    for seed in range(20_000_000, 20_003_000):
        scene = drawing.draw(seed)
        texts += [part for _, prompt, answer in tasks.tasks(scene, 6, lambda thing: "") for part in (prompt, strip_locations(answer))]
    texts += [style(word) for word in words.WORDS for style in (str.lower, str.upper, str.capitalize)]
    texts += [question.strip() for question in tasks.ODD_QUESTIONS] * 2
    tokenizer = bundled.train_tokenizer(texts, shape.BASE_VOCABULARY)
    bundled.write_tokenizer(tokenizer, FOLDER)
    bundled.write_preprocessor(FOLDER, shape.IMAGE_SIZE, shape.PATCH_SIZE)
    print(f"{tokenizer.get_vocab_size()} tokens")


def strip_locations(text):
    return "".join(part.split(">", 1)[-1] for part in text.split("<loc"))


def load_tokenizer():
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def new_model(tokenizer):
    from transformers import PaliGemmaForConditionalGeneration

    model = PaliGemmaForConditionalGeneration(shape.configuration(tokenizer.token_to_id("<image>")))
    with torch.no_grad():
        # Neighbouring locations start alike.
        first = tokenizer.token_to_id("<loc0000>")
        value = torch.linspace(0, 1, LOCATIONS)[:, None]
        waves = torch.cat([f(math.pi * value * 2.0**torch.arange(8)) for f in (torch.sin, torch.cos)], dim=1)
        embedding = model.model.language_model.embed_tokens.weight
        smooth = waves @ torch.randn(16, embedding.shape[1])
        embedding[first:first + LOCATIONS] = 0.02 * smooth / smooth.std()
    return model


def load_model():
    from transformers import PaliGemmaForConditionalGeneration

    return PaliGemmaForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32)


class Trainer:
    def __init__(self, options):
        self.options, self.tokenizer = options, load_tokenizer()
        torch.manual_seed(options.seed)
        self.model = load_model() if (FOLDER / "model.safetensors").exists() else new_model(self.tokenizer)
        self.heads = torch.nn.Linear(self.model.config.vision_config.hidden_size, targets.HEADS)
        self.step, self.seen, self.spent = 0, 0, 0.0
        self.rare = torch.full((len(targets.CHARACTERS),), 8.0)
        self.everything = torch.nn.ModuleList([self.model, self.heads])
        named = [(name, p) for name, p in self.everything.named_parameters() if p.requires_grad]
        if options.stage == "tower":
            named = [(name, p) for name, p in named if "vision_tower" in name or name.startswith("1.")]
        matrices = [p for name, p in named if p.dim() == 2 and "embed" not in name and not name.startswith("1.")]
        others = [p for name, p in named if not any(p is m for m in matrices)]
        self.optimizers = [
            torch.optim.Muon(matrices, lr=options.rate, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.parameters = [p for _, p in named]
        self.average = {name: value.detach().clone() for name, value in self.everything.state_dict().items()}
        if options.state.exists():
            self.restore()

    def restore(self):
        state = torch.load(self.options.state, weights_only=False)
        self.everything.load_state_dict(state["weights"])
        self.average, self.step, self.seen, self.spent = state["average"], state["step"], state["seen"], state["spent"]
        if state["stage"] == self.options.stage:
            for optimizer, saved in zip(self.optimizers, state["optimizers"]):
                optimizer.load_state_dict(saved)
        print(f"goes on from step {self.step}, {self.seen} pictures", flush=True)

    def save(self):
        state = dict(stage=self.options.stage, weights=self.everything.state_dict(), average=self.average, step=self.step, seen=self.seen,
                     spent=self.spent, optimizers=[optimizer.state_dict() for optimizer in self.optimizers])
        partial = self.options.state.with_suffix(".part")
        torch.save(state, partial)
        partial.rename(self.options.state)

    def log(self, **entry):
        line = json.dumps({"stage": self.options.stage, "step": self.step, "pictures": self.seen, "seconds": round(self.spent), **entry})
        print(line, flush=True)
        with open(self.options.log, "a") as journal:
            journal.write(line + "\n")

    def head_loss(self, features, wanted):
        kinds, colours, boxes, characters = wanted
        output = self.heads(features)
        kind, colour, box, character = output.split((len(targets.KINDS), len(targets.COLOUR_NAMES), 4, len(targets.CHARACTERS)), dim=-1)
        something = (kinds > 0).float()
        loss = functional.cross_entropy(kind.flatten(0, 1), kinds.flatten()) + functional.cross_entropy(colour.flatten(0, 1), colours.flatten())
        loss = loss + 5 * ((box.sigmoid() - boxes).abs().mean(-1) * something).sum() / something.sum().clamp(min=1)
        # Most patches have no character, and those that have one have few.
        loss = loss + 20 * functional.binary_cross_entropy_with_logits(character, characters, pos_weight=self.rare)
        with torch.no_grad():
            hit = (kind.argmax(-1) == kinds).float() * something
            spelled = ((character > 0).float() * characters).sum() / characters.sum().clamp(min=1)
            self.note("patch kinds", (hit.sum() / something.sum().clamp(min=1)).item())
            self.note("patch boxes", (((box.sigmoid() - boxes).abs().mean(-1) * something).sum() / something.sum().clamp(min=1)).item())
            self.note("patch characters", spelled.item())
        return loss

    def note(self, name, value):
        self.notes[name][0] += value
        self.notes[name][1] += 1

    def answer_loss(self, features, rows):
        """Loss of the answers' tokens of one chunk of rows, each row's divided by the root of its length; a location near the true one is nearly right."""
        length = max(len(prefix) + len(suffix) for _, _, prefix, suffix in rows)
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        image = features.shape[1]
        kept, labels, weights, owners = [], [], [], []
        for row, (_, _, prefix, suffix) in enumerate(rows):
            ids[row, :len(prefix) + len(suffix)] = torch.tensor(prefix + suffix)
            start = row * (image + length) + image + len(prefix) - 1
            kept += range(start, start + len(suffix))
            labels += suffix
            weights += [len(suffix) ** -0.5] * len(suffix)
            owners += [row] * len(suffix)
        which = torch.tensor([row[0] for row in rows])
        prefix = torch.tensor([len(row[2]) for row in rows])
        logits = shape.answers(self.model, features, which, ids, prefix, torch.tensor(kept))
        labels, weights = torch.tensor(labels), torch.tensor(weights)
        first = self.first_location
        chances = logits.log_softmax(-1)
        losses = -chances.gather(1, labels[:, None])[:, 0]
        located = ((labels >= first) & (labels < first + LOCATIONS)).nonzero()[:, 0]
        if len(located):
            distance = torch.arange(LOCATIONS)[None] - (labels[located] - first)[:, None]
            wanted = torch.exp(-0.5 * (distance / self.options.blur) ** 2)
            wanted = wanted / wanted.sum(1, keepdim=True)
            losses = losses.clone()
            losses[located] = -(wanted * chances[located, first:first + LOCATIONS]).sum(1) + (wanted * wanted.clamp(min=1e-9).log()).sum(1)
        with torch.no_grad():
            chosen = logits.argmax(-1)
            near = (chosen - labels).abs() <= torch.where((labels >= first) & (labels < first + LOCATIONS), 20, 0)
            segments = (labels >= first + LOCATIONS) & (labels < first + LOCATIONS + bundled.SEGMENTS)
            wrong = torch.zeros(len(rows)).index_add_(0, torch.tensor(owners), (~near & ~segments).float())
            for row, (_, kind, _, _) in enumerate(rows):
                self.note(kind, float(wrong[row] == 0))
            if segments.any():
                self.note("segment codes", near[segments].float().mean().item())
        return (losses * weights).sum()

    def train(self):
        options = self.options
        self.first_location = self.tokenizer.token_to_id("<loc0000>")
        self.notes = defaultdict(lambda: [0.0, 0])
        count = options.tasks if options.stage == "model" else 0
        first = 30_000_000 + self.seen + (10_000_000 * (options.stage == "tower"))
        data = targets.Scenes(first, count, self.tokenizer)
        loader = iter(DataLoader(data, batch_size=options.pictures, num_workers=options.workers, collate_fn=targets.gather, prefetch_factor=2, multiprocessing_context="fork"))
        torch.set_num_threads(options.threads)
        start, saved, shown, begun = time.time(), time.time(), 0, self.step
        while True:
            share = (time.time() - start) / (options.minutes * 60)
            if share >= 1:
                break
            rate = options.rate * min(1, (self.step - begun + 1) / 100) * (max(0.01, 1 - share) if options.decay else 1)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
            began = time.time()
            pictures, wanted, rows = next(loader)
            waited = time.time() - began
            with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
                features = shape.look(self.model, shape.pixel_values(pictures))
            features = features.float()
            if count:
                # The tower's gradient is gathered over the chunks, then goes through it once.
                leaf = features.detach().requires_grad_()
                chunks = targets.shuffled_chunks(rows, options.chunk)
                whole = sum(len(suffix) ** 0.5 for *_, suffix in rows)
                total = 0.0
                for chunk in chunks:
                    with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
                        loss = self.answer_loss(leaf, chunk)
                    (loss / whole).backward()
                    total += loss.item() / whole
                self.note("loss", total)
                helper = self.head_loss(features, wanted)
                torch.autograd.backward([features, 0.2 * helper], [leaf.grad, None])
                self.note("helper loss", helper.item())
            else:
                helper = self.head_loss(features, wanted)
                helper.backward()
                self.note("helper loss", helper.item())
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            keep = min(options.average, (self.step - begun + 1) / (self.step - begun + 10))
            with torch.no_grad():
                for name, value in self.everything.state_dict().items():
                    if value.is_floating_point():
                        self.average[name].lerp_(value, 1 - keep)
            self.step += 1
            self.seen += len(pictures)
            self.spent += time.time() - began
            self.note("waited", waited)
            if self.step % 50 == 0:
                self.log(rate=round(rate, 6), **{name: round(total / max(1, number), 4) for name, (total, number) in self.notes.items()})
                self.notes.clear()
            if time.time() - saved > 600:
                self.save()
                saved = time.time()
        self.save()


def export(options):
    from transformers import PaliGemmaForConditionalGeneration

    tokenizer = load_tokenizer()
    model = PaliGemmaForConditionalGeneration(shape.configuration(tokenizer.token_to_id("<image>")))
    state = torch.load(options.state, weights_only=False)
    model.load_state_dict({name[2:]: value for name, value in state["average"].items() if name.startswith("0.")})
    model.eval().to(torch.bfloat16).save_pretrained(FOLDER)
    print(f"step {state['step']}, {state['seen']} pictures, {sum(p.numel() for p in model.parameters())} weights")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=("tokenizer", "tower", "model", "export"))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--state", type=Path, default=Path("scenes-state.pt"))
    parser.add_argument("--log", type=Path, default=FOLDER / "training_log.jsonl")
    parser.add_argument("--pictures", type=int, default=24, help="of a step")
    parser.add_argument("--tasks", type=int, default=4, help="of a picture")
    parser.add_argument("--chunk", type=int, default=24, help="rows of one pass")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--decay", action="store_true")
    parser.add_argument("--average", type=float, default=0.998)
    parser.add_argument("--blur", type=float, default=4.0, help="how many locations aside counts as nearly right")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args()
    if options.stage == "tokenizer":
        make_tokenizer()
    elif options.stage == "export":
        export(options)
    else:
        Trainer(options).train()


if __name__ == "__main__":
    main()
