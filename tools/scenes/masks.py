#!/usr/bin/env python3
"""The codes of `segment`: a VQ-VAE of 64 × 64 masks with sixteen codes of 128, smaller than big_vision's and laid out like it.

usage: masks.py [--out FILE.npz] [--scenes N] [--steps N] [--seed N]

Trains on the visible masks of scenes, cropped to their boxes, and writes encoder, code book and decoder (`gemmule-quantize --seg-vae`
reads the latter two).
"""

import argparse
import random
import time
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

import drawing
import model  # noqa: F401, finds tools/reference
from mask_goldens import Residual, decoder

SIDE, CODES, CODE_LEN, WIDTH = 64, 128, 64, 32
UP = (32, 32, 16, 16)
FILE = Path(__file__).resolve().parents[2] / "models" / "scenes" / "masks.npz"


class MaskCodes(nn.Module):
    def __init__(self):
        super().__init__()
        encoder, inputs = [], 1
        for outputs in (16, 32, 64, 64):
            encoder += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU()]
            inputs = outputs
        self.encoder = nn.Sequential(*encoder, Residual(64), nn.Conv2d(64, CODE_LEN, 1))
        self.decoder = decoder(CODE_LEN, WIDTH, UP)
        self.register_buffer("book", torch.randn(CODES, CODE_LEN))

    def nearest(self, x):
        """[N, CODE_LEN, 4, 4] to the codes [N, 16]."""
        flat = x.permute(0, 2, 3, 1).reshape(-1, CODE_LEN)
        return torch.cdist(flat, self.book).argmin(1).view(-1, 16)

    def codes(self, masks):
        """[N, 64, 64] values from 0 to 1 to the codes [N, 16]."""
        return self.nearest(self.encoder(masks[:, None] * 2 - 1))

    def decode(self, codes):
        return self.decoder(self.book[codes].view(-1, 4, 4, CODE_LEN).permute(0, 3, 1, 2))[:, 0]

    def save(self, path):
        arrays = {name: value.numpy() for name, value in self.state_dict().items() if name != "book"}
        path.parent.mkdir(parents=True, exist_ok=True)
        numpy.savez_compressed(path, **arrays, **{"_vq_vae._embedding": self.book.numpy()})

    @classmethod
    def load(cls, path=FILE):
        archive = numpy.load(path)
        state = {("book" if name == "_vq_vae._embedding" else name): torch.from_numpy(archive[name]) for name in archive.files}
        model = cls()
        model.load_state_dict(state)
        return model.eval().requires_grad_(False)


def crop(thing):
    """The visible mask within its box, as 64 × 64 values from 0 to 1."""
    side = drawing.SIDE
    x_min, y_min, x_max, y_max = (round(value * side) for value in thing.box)
    part = Image.fromarray(thing.mask[y_min:y_max, x_min:x_max].astype(numpy.uint8) * 255)
    return numpy.asarray(part.resize((SIDE, SIDE), Image.Resampling.BILINEAR), numpy.float32) / 255


def tokens(codes):
    return "".join(f"<seg{int(code):03d}>" for code in codes)


def overlap(logits, masks):
    """Intersection over union of each."""
    ours, theirs = logits > 0, masks > 0.5
    return (ours & theirs).sum((1, 2)) / (ours | theirs).sum((1, 2)).clamp(min=1)


def train(masks, steps, generator):
    model = MaskCodes()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    counts, sums, start = torch.ones(CODES), model.book.clone(), time.time()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, step / 100) * (1 - 0.97 * step / steps)
        batch = masks[torch.tensor(generator.choices(range(len(masks)), k=96))].float() / 255
        # Mirrored both ways and squeezed, for shapes that no scene has.
        for axis in (1, 2):
            if generator.random() < 0.5:
                batch = batch.flip(axis)
        found = model.encoder(batch[:, None] * 2 - 1)
        flat = found.permute(0, 2, 3, 1).reshape(-1, CODE_LEN)
        if step == 200:
            model.book = flat.detach()[torch.randperm(len(flat))[:CODES]].clone()
            counts, sums = torch.ones(CODES), model.book.clone()
        if step < 200:
            logits, commitment = model.decoder(found)[:, 0], 0.0
        else:
            codes = model.nearest(found)
            chosen = model.book[codes].view(-1, 4, 4, CODE_LEN).permute(0, 3, 1, 2)
            logits = model.decoder(found + (chosen - found).detach())[:, 0]
            commitment = functional.mse_loss(found, chosen)
            with torch.no_grad():
                one_hot = functional.one_hot(codes.view(-1), CODES).float()
                counts.mul_(0.98).add_(one_hot.sum(0), alpha=0.02)
                sums.mul_(0.98).add_(one_hot.T @ flat.detach(), alpha=0.02)
                model.book = sums / counts[:, None].clamp(min=1e-3)
                # Codes that nothing takes start again where something is.
                dead = (counts < 0.05) if step % 50 == 0 and step < steps * 0.8 else torch.zeros(CODES, dtype=torch.bool)
                if dead.any():
                    model.book[dead] = flat.detach()[torch.randint(len(flat), (int(dead.sum()),))]
                    counts[dead], sums[dead] = 1.0, model.book[dead]
        loss = functional.binary_cross_entropy_with_logits(4 * logits, batch) + 0.25 * commitment
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 0 or step == steps - 1:
            print(f"masks: step {step}, loss {loss.item():.4f}, overlap {overlap(logits.detach(), batch).mean():.4f}, {time.time() - start:.0f} s", flush=True)
    return model.eval().requires_grad_(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--scenes", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    every = [(crop(thing) * 255).astype(numpy.uint8) for seed in range(10_000_000, 10_000_000 + options.scenes)
             for thing in drawing.draw(seed, kind="things").things]
    masks = torch.from_numpy(numpy.stack(every))
    print(f"{len(masks)} masks", flush=True)
    held_out, masks = masks[:1000], masks[1000:]
    model = train(masks, options.steps, random.Random(options.seed))
    values = held_out.float() / 255
    codes = model.codes(values)
    found = overlap(model.decode(codes), values)
    print(f"held out: overlap {found.mean():.4f}, above 0.5 in {(found > 0.5).float().mean():.4f}, above 0.8 in {(found > 0.8).float().mean():.4f}, {len(codes.unique())} codes in use")
    model.save(options.out)


if __name__ == "__main__":
    main()
