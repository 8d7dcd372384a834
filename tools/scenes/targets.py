"""What the tower's helper heads learn of each patch, and batches for training."""

import random

import numpy
import torch
from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info

import drawing
import masks as mask_codes
import tasks
from model import GRID, IMAGE_SIZE, bundled
from outlines import COLOURS, SHAPES

KINDS = ("none", "bar", *SHAPES)
COLOUR_NAMES = ("none", *COLOURS)
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.:-$€"
HEADS = len(KINDS) + len(COLOUR_NAMES) + 4 + len(CHARACTERS)


def patches(scene):
    """Per patch: the kind and colour of what covers most of it, its box in shares of the side, the characters whose middles lie in it."""
    kinds = numpy.zeros((GRID, GRID), numpy.int64)
    colours = numpy.zeros((GRID, GRID), numpy.int64)
    boxes = numpy.zeros((GRID, GRID, 4), numpy.float32)
    best = numpy.full((GRID, GRID), 0.2, numpy.float32)
    step = drawing.SIDE // GRID
    for thing in scene.things:
        cover = thing.mask.reshape(GRID, step, GRID, step).mean((1, 3))
        mine = cover > best
        best[mine] = cover[mine]
        kinds[mine], colours[mine], boxes[mine] = KINDS.index(thing.shape), COLOUR_NAMES.index(thing.colour), thing.box
    characters = numpy.zeros((GRID, GRID, len(CHARACTERS)), numpy.float32)
    for line in scene.lines:
        for character, box in line.characters:
            place = CHARACTERS.find(character.lower())
            x, y = (box[0] + box[2]) / 2 * GRID, (box[1] + box[3]) / 2 * GRID
            if place >= 0 and 0 <= x < GRID and 0 <= y < GRID:
                characters[int(y), int(x), place] = 1
    for bar in scene.bars:
        x_min, y_min, x_max, y_max = bar.box
        for row in range(int(y_min * GRID), min(GRID, int(y_max * GRID) + 1)):
            for column in range(int(x_min * GRID), min(GRID, int(x_max * GRID) + 1)):
                x, y = (column + 0.5) / GRID, (row + 0.5) / GRID
                if x_min < x < x_max and y_min - 0.5 / GRID < y < y_max:
                    kinds[row, column], colours[row, column], boxes[row, column] = KINDS.index("bar"), COLOUR_NAMES.index(bar.colour), bar.box
    flat = lambda array: torch.from_numpy(array.reshape(GRID * GRID, *array.shape[2:]))
    return flat(kinds), flat(colours), flat(boxes), flat(characters)


def pixels(picture):
    """As the model's preprocessor resizes."""
    return torch.from_numpy(numpy.asarray(picture.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)).copy())


class Scenes(IterableDataset):
    """Scenes from the seed `first` on, each once: pixels, targets of the patches, and `count` tasks as (kind, prefix, suffix) of ids."""

    def __init__(self, first, count, tokenizer):
        self.first, self.count, self.tokenizer = first, count, tokenizer

    def __iter__(self):
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        torch.set_num_threads(1)
        book = mask_codes.MaskCodes.load() if self.count else None
        seed = self.first + worker

        def codes(thing):
            return mask_codes.tokens(book.codes(torch.from_numpy(mask_codes.crop(thing))[None])[0])

        while True:
            scene = drawing.draw(seed)
            rows = []
            for kind, prompt, answer in tasks.tasks(scene, self.count, codes):
                prefix = self.tokenizer.encode(prompt + "\n").ids
                suffix = self.tokenizer.encode(answer, add_special_tokens=False).ids + [bundled.EOS]
                rows.append((kind, prefix, suffix))
            yield pixels(scene.picture), patches(scene), rows
            seed += workers


def gather(batch):
    """Stacks what can be stacked; the rows are told of their picture."""
    pictures = torch.stack([picture for picture, _, _ in batch])
    heads = [torch.stack(parts) for parts in zip(*(targets for _, targets, _ in batch))]
    rows = [(number, *row) for number, (_, _, rows) in enumerate(batch) for row in rows]
    return pictures, heads, rows


def shuffled_chunks(rows, chunk):
    """Rows of like length together, chunk by chunk."""
    ordered = sorted(rows, key=lambda row: len(row[2]) + len(row[3]))
    chunks = [ordered[at:at + chunk] for at in range(0, len(ordered), chunk)]
    random.shuffle(chunks)
    return chunks
