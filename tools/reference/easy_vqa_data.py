"""The easy-VQA data set (PyPI `easy-vqa`) as pictures, questions, captions and boxes.

easy-VQA ships 64x64 pictures of one coloured shape on a plain background, and questions with one-word
answers. Captions and boxes are derived here from the pixels that differ from the background, and agree
with every answer of the data set to a question about colour or shape (`contradictions`).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy
from PIL import Image

SHAPES = ("circle", "rectangle", "triangle")
FILL = {
    "black": (0, 0, 0),
    "blue": (0, 0, 255),
    "brown": (165, 42, 42),
    "gray": (128, 128, 128),
    "green": (0, 255, 0),
    "red": (255, 0, 0),
    "teal": (0, 128, 128),
    "yellow": (255, 255, 0),
}
SIDE = 64
LOCATIONS = 1024


@dataclass
class Picture:
    pixels: numpy.ndarray  # [64, 64, 3] uint8
    background: numpy.ndarray  # [3] uint8
    box: tuple  # x_min, y_min, x_max, y_max in pixels, the maxima exclusive
    colour: str
    shape: str
    path: str


def package_folder() -> Path:
    import easy_vqa

    return Path(easy_vqa.__file__).parent / "data"


def find_box(pixels: numpy.ndarray):
    """Background colour and the bounding box of everything else."""
    colours, counts = numpy.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    background = colours[counts.argmax()]
    different = (pixels != background).any(axis=2)
    rows, columns = numpy.where(different.any(axis=1))[0], numpy.where(different.any(axis=0))[0]
    return background, (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def describe(pixels, background, box):
    """Colour and shape: the fill colour is plain, a rectangle fills its box's top row, a triangle only
    the bottom row, a circle neither."""
    x_min, y_min, x_max, y_max = box
    inside = pixels[y_min:y_max, x_min:x_max].reshape(-1, 3)
    filled = inside[(inside != background).any(axis=1)]
    values, counts = numpy.unique(filled, axis=0, return_counts=True)
    fill = values[counts.argmax()].astype(int)
    colour = min(FILL, key=lambda name: abs(fill - FILL[name]).sum())
    top, bottom = ((pixels[row, x_min:x_max] != background).any(axis=1).mean() for row in (y_min, y_max - 1))
    shape = "rectangle" if top > 0.9 else "triangle" if bottom > 0.9 else "circle"
    return colour, shape


def contradictions(pictures, questions) -> int:
    """How many of the data set's own what-questions disagree with the derived colour and shape."""
    wrong = 0
    for question, answer, image in questions:
        if answer in FILL:
            wrong += answer != pictures[image].colour
        elif answer in SHAPES:
            wrong += answer != pictures[image].shape
    return wrong


def load(split: str):
    """Pictures by image number, and [(question, answer, image number)], of `train` or `test`."""
    folder = package_folder() / split
    questions = [tuple(entry) for entry in json.loads((folder / "questions.json").read_text())]
    pictures = {}
    for image in sorted({image for _, _, image in questions}):
        path = folder / "images" / f"{image}.png"
        pixels = numpy.asarray(Image.open(path).convert("RGB"))
        background, box = find_box(pixels)
        colour, shape = describe(pixels, background, box)
        pictures[image] = Picture(pixels, background, box, colour, shape, str(path))
    return pictures, questions


def box_tokens(box, side: int = SIDE) -> str:
    """`<loc>` tokens of a box in pixels, in the model's order: y_min, x_min, y_max, x_max."""
    x_min, y_min, x_max, y_max = (round(value / side * (LOCATIONS - 1)) for value in box)
    return "".join(f"<loc{value:04d}>" for value in (y_min, x_min, y_max, x_max))


def position(box, side: int = SIDE) -> str:
    """Where the box's centre lies, in words."""
    x, y = (box[0] + box[2]) / 2 / side, (box[1] + box[3]) / 2 / side
    vertical = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
    horizontal = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    if not vertical and not horizontal:
        return "in the middle"
    return "at the " + " ".join(word for word in (vertical, horizontal) if word)
