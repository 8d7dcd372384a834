"""Scenes: pictures of several things, printed text or a bar chart, drawn from a seed, with all that is known of them.

`draw(seed, held_out)` gives the same scene for the same seed, fonts and versions of NumPy and Pillow. The words of held-out scenes
appear in no other.
"""

import io
import math
import random
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import words
from outlines import COLOURS, OUTLINES, SHAPES, TINTS

SIDE = 224  # pixels of a scene
FINE = 2  # drawn larger by this factor, then reduced
FONT_FOLDERS = [Path("/usr/share/fonts/truetype") / name for name in ("dejavu", "liberation2", "lato", "open-sans", "roboto/unhinted/RobotoTTF")] + [
    Path("/usr/share/fonts/opentype/comic-neue")]
# Styles that nobody prints signs in.
ODD_FONTS = ("Hairline", "Thin", "Math", "Condensed-Thin", "ExtraLight")


@dataclass
class Thing:
    shape: str
    colour: str
    mask: numpy.ndarray  # [SIDE, SIDE] bool: what is visible of it
    box: tuple = ()  # x_min, y_min, x_max, y_max of the mask, in shares of the side, the maxima exclusive

    @property
    def area(self):
        return float(self.mask.mean())

    @property
    def centre(self):
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass
class Line:
    """A line of printed text, its box and those of its characters, in shares of the side."""
    text: str
    box: tuple
    characters: list


@dataclass
class Bar:
    colour: str
    name: str
    value: int
    box: tuple


@dataclass
class Scene:
    seed: int
    picture: Image.Image = None
    background: str | None = None  # its colour where that is not in doubt
    things: list = field(default_factory=list)
    lines: list = field(default_factory=list)  # from the top down
    bars: list = field(default_factory=list)  # from the left to the right

    @property
    def kind(self):
        return "chart" if self.bars else "text" if self.lines else "things"


def colour_of(name, rng):
    """A colour that bears this name, as RGB."""
    hue, saturation, value = (rng.uniform(*limits) for limits in COLOURS[name])
    saturation, value = saturation / 100, value / 100
    sector = (hue % 360) / 60
    channel = lambda n: value * (1 - saturation * max(0, min((n + sector) % 6, 4 - (n + sector) % 6, 1)))
    return tuple(round(255 * channel(n)) for n in (5, 3, 1))


def distance(first, second):
    return math.dist(first, second)


def smooth_noise(rng, cells):
    """[SIDE, SIDE] values around 0 that change smoothly."""
    coarse = numpy.frombuffer(rng.randbytes(cells * cells), numpy.uint8).reshape(cells, cells)
    return numpy.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC), numpy.float32) / 127.5 - 1


def background(rng):
    """[SIDE, SIDE, 3] float values, their name where it is not in doubt, and their mean colour."""
    style = rng.random()
    name = rng.choice(("white", "gray", "black", "blue", "green", "yellow", "pink", "brown", "orange", "purple", "red", "white", "white", "gray"))
    base = numpy.array(colour_of(name, rng), numpy.float32)
    field_ = numpy.broadcast_to(base, (SIDE, SIDE, 3)).copy()
    if style < 0.35:
        return field_, name, base
    if style < 0.55:
        # A gradient that stays within the name.
        angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0.05, 0.14)
        ramp = numpy.linspace(-1, 1, SIDE, dtype=numpy.float32)
        slope = math.cos(angle) * ramp[None, :] + math.sin(angle) * ramp[:, None]
        return field_ * (1 + strength * slope[:, :, None]), name, base
    if style < 0.75:
        strength = rng.uniform(8, 28)
        return field_ + strength * smooth_noise(rng, rng.choice((3, 6, 12, 40)))[:, :, None], None, base
    # Two colours: a gradient, stripes or checks.
    second = numpy.array([rng.uniform(30, 235) for _ in range(3)], numpy.float32)
    x, y = numpy.meshgrid(numpy.arange(SIDE), numpy.arange(SIDE))
    angle, period = rng.uniform(0, math.pi), rng.uniform(16, 70)
    along = math.cos(angle) * x + math.sin(angle) * y
    if style < 0.88:
        share = (along - along.min()) / max(1.0, along.max() - along.min())
    elif style < 0.95:
        second = base + (second - base) * 0.35
        share = (numpy.sin(2 * math.pi * along / period) > 0).astype(numpy.float32)
    else:
        second = base + (second - base) * 0.3
        share = ((x // period + y // period) % 2).astype(numpy.float32)
    mixed = base + share[:, :, None].astype(numpy.float32) * (second - base)
    return mixed, None, mixed.mean((0, 1))


def layer(shape, colour, centre, radius, stretch, turn, mirrored, rng):
    """The thing alone at FINE times the size: an RGB picture, its mask, and the place of both."""
    parts, _, _ = OUTLINES[shape]
    reach = math.ceil(radius * 1.5 * FINE) + 2
    picture = Image.new("RGB", (2 * reach, 2 * reach), colour)
    mask = Image.new("L", picture.size, 0)
    paint, cover = ImageDraw.Draw(picture), ImageDraw.Draw(mask)
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))

    def place(point):
        x, y = point[0] * stretch, point[1] / stretch
        x = -x if mirrored else x
        return (reach + FINE * radius * (cosine * x - sine * y), reach + FINE * radius * (sine * x + cosine * y))

    def ellipse(box, start=0, end=360):
        centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        wide, high = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
        steps = [math.radians(start + (end - start) * step / 40) for step in range(41)]
        return [(centre_x + wide * math.cos(a), centre_y + high * math.sin(a)) for a in steps]

    dark = tuple(round(0.6 * channel) for channel in colour)
    hole = None
    for tint, kind, numbers in parts:
        fill = colour if tint == "main" else dark if tint == "dark" else TINTS[tint]
        if kind == "polygon":
            points = numbers
        elif kind == "arc":
            outer = ellipse(numbers[:4], numbers[4], numbers[5])
            thin = numbers[6]
            inner = ellipse((numbers[0] + thin, numbers[1] + thin, numbers[2] - thin, numbers[3] - thin), numbers[5], numbers[4])
            points = outer + inner
        else:
            points = ellipse(numbers[:4])
            if kind == "ring":
                hole = [place((x * numbers[4], y * numbers[4])) for x, y in points]
        points = [place(point) for point in points]
        paint.polygon(points, fill=fill)
        cover.polygon(points, fill=255)
    if hole:
        cover.polygon(hole, fill=0)
    if rng.random() < 0.35:
        # Light from one side.
        strength = rng.uniform(0.08, 0.2)
        ramp = numpy.linspace(1 + strength, 1 - strength, 2 * reach, dtype=numpy.float32)[:, None, None]
        picture = Image.fromarray(numpy.clip(numpy.asarray(picture, numpy.float32) * ramp, 0, 255).astype(numpy.uint8))
    return picture, mask, (round(centre[0] * FINE) - reach, round(centre[1] * FINE) - reach)


def put_things(canvas, mean, count, rng, free=None):
    """Draws things on the canvas; those that would hide others are left out. `free`: the area to be used, in shares."""
    x_min, y_min, x_max, y_max = free or (0, 0, 1, 1)
    things, covers = [], []
    few = rng.random() < 0.45
    kinds = [(rng.choice(SHAPES), rng.choice(tuple(COLOURS))) for _ in range(2 if few else count)]
    for _ in range(count * 4):
        if len(things) == count:
            break
        shape, name = rng.choice(kinds) if few else (rng.choice(SHAPES), rng.choice(tuple(COLOURS)))
        colour = colour_of(name, rng)
        if distance(colour, mean) < 90:
            continue
        radius = SIDE * (rng.uniform(0.1, 0.3) if count < 3 else rng.uniform(0.08, 0.2) if count < 5 else rng.uniform(0.075, 0.15))
        radius = min(radius, SIDE * 0.48 * min(x_max - x_min, y_max - y_min))
        parts, freedom, mirror = OUTLINES[shape]
        stretch = 1 if shape in ("square", "circle", "ring") else rng.uniform(0.92, 1.1)
        margin = radius * 0.85
        centre = rng.uniform(x_min * SIDE + margin, x_max * SIDE - margin), rng.uniform(y_min * SIDE + margin, y_max * SIDE - margin)
        picture, mask, corner = layer(shape, colour, centre, radius, stretch, rng.uniform(-freedom, freedom), mirror and rng.random() < 0.5, rng)
        whole = Image.new("L", canvas.size, 0)
        whole.paste(mask, corner)
        small = numpy.asarray(whole.reduce(FINE)) > 127
        if small.sum() < 0.8 * (numpy.asarray(mask) > 127).sum() / FINE**2:
            continue  # too much beyond the edge
        # What lies below must stay visible, and be told from this.
        if any((cover & small).sum() > 0.22 * cover.sum() for cover in covers):
            continue
        if any((cover & small).any() and distance(colour, other) < 90 for cover, (_, other) in zip(covers, things)):
            continue
        if rng.random() < 0.15:
            shadow = whole.filter(ImageFilter.GaussianBlur(5)).point(lambda v: v * 0.4)
            canvas.paste((10, 10, 10), (6, 8), shadow)
        canvas.paste(picture, corner, mask)
        for index, cover in enumerate(covers):
            covers[index] = cover & ~small
        covers.append(small)
        things.append((Thing(shape, name, small), colour))
    found = []
    for (thing, _), cover in zip(things, covers):
        rows, columns = numpy.flatnonzero(cover.any(1)), numpy.flatnonzero(cover.any(0))
        thing.mask = cover
        thing.box = (columns[0] / SIDE, rows[0] / SIDE, (columns[-1] + 1) / SIDE, (rows[-1] + 1) / SIDE)
        found.append(thing)
    return found


@lru_cache(maxsize=1)
def font_files():
    files = sorted(file for folder in FONT_FOLDERS for file in folder.glob("*.[ot]tf") if not any(odd in file.name for odd in ODD_FONTS))
    if len(files) < 20:
        raise SystemExit("fonts are missing: apt-get install fonts-dejavu fonts-liberation2 fonts-lato fonts-open-sans fonts-roboto-unhinted fonts-comic-neue")
    return files


@lru_cache(maxsize=400)
def font(path, size):
    return ImageFont.truetype(str(path), size)


def print_line(canvas, text, place, face, colour):
    """Prints a line with its top left corner at `place` (pixels of the canvas); returns it, or none where it does not fit."""
    draw = ImageDraw.Draw(canvas)
    x, y = place
    left, top, right, bottom = draw.textbbox((x, y), text, font=face, anchor="la")
    if right > canvas.width - 4 or bottom > canvas.height - 4 or left < 2:
        return None
    draw.text((x, y), text, font=face, fill=colour, anchor="la")
    ends = [x + face.getlength(text[:end]) for end in range(len(text) + 1)]
    share = lambda box: tuple(value / canvas.width for value in box)
    characters = [(c, share((start, top, end, bottom))) for c, start, end in zip(text, ends, ends[1:]) if c != " "]
    return Line(text, share((left, top, right, bottom)), characters)


def contrasting(mean, rng):
    light = sum(mean) / 3
    if rng.random() < 0.6:
        return (255, 255, 255) if light < 120 else (15, 15, 15)
    for _ in range(20):
        colour = colour_of(rng.choice(tuple(COLOURS)), rng)
        if distance(colour, mean) > 150:
            return colour
    return (255, 255, 255) if light < 120 else (15, 15, 15)


def put_text(canvas, mean, rng, held_out):
    """One to three lines, on a sign or straight on the background."""
    face_file = rng.choice(font_files())
    count = rng.choices((1, 2, 3), (0.6, 0.28, 0.12))[0]
    lines, colour = [], contrasting(mean, rng)
    texts = [words.text(rng, held_out) for _ in range(count)]
    size = rng.randint(26, 60) if count == 1 else rng.randint(22, 40)
    while size > 17:
        face = font(face_file, size * FINE)
        widths = [face.getlength(text) for text in texts]
        if max(widths) < canvas.width * 0.93:
            break
        size -= 2
    else:
        return []
    height = size * FINE * rng.uniform(1.25, 1.6)
    start_y = rng.uniform(4, max(5, canvas.height - height * count - 8))
    sign = rng.random() < 0.4
    start_x = rng.uniform(6, max(7, canvas.width - max(widths) - 8))
    if sign:
        pad = rng.uniform(8, 24)
        plate = colour_of(rng.choice(tuple(COLOURS)), rng)
        around = (start_x - pad, start_y - pad * 0.6, start_x + max(widths) + pad, start_y + height * count + pad * 0.4)
        ImageDraw.Draw(canvas).rounded_rectangle(around, rng.choice((0, 10, 24)), fill=plate)
        colour = contrasting(plate, rng)
    centred = rng.random() < 0.5
    for index, (text, width) in enumerate(zip(texts, widths)):
        x = start_x + (max(widths) - width) / 2 if centred else start_x
        line = print_line(canvas, text, (x, start_y + height * index), face, colour)
        if line:
            lines.append(line)
    return lines


def put_chart(canvas, rng):
    """A bar chart with its values on an axis; bars have colours, and names below."""
    draw = ImageDraw.Draw(canvas)
    side = canvas.width
    dark = rng.random() < 0.15
    ink = (230, 230, 230) if dark else (30, 30, 30)
    draw.rectangle((0, 0, side, side), fill=(28, 30, 36) if dark else rng.choice(((255, 255, 255), (250, 250, 245), (240, 244, 250))))
    face = font(rng.choice(font_files()), rng.randint(17, 20) * FINE)
    count = rng.randint(2, 5)
    names = rng.sample(words.BAR_NAMES, count) if rng.random() < 0.5 else list("ABCDE"[:count])
    names = [name[:3] for name in names]
    left, right, top, bottom = side * 0.16, side * 0.97, side * 0.06, side * 0.84
    highest = 10
    for value in range(0, highest + 1, 2):
        y = bottom - (bottom - top) * value / highest
        draw.line((left, y, right, y), fill=(200, 200, 200) if not dark else (80, 80, 80), width=2)
        draw.text((left - 8, y), str(value), font=face, fill=ink, anchor="rm")
    colours = rng.sample([c for c in COLOURS if c not in (("black",) if dark else ("white",))], count)
    step, bars, lines = (right - left) / count, [], []
    width = step * rng.uniform(0.45, 0.8)
    for index, (name, colour) in enumerate(zip(names, colours)):
        value = rng.randint(1, highest)
        middle = left + step * (index + 0.5)
        corners = (middle - width / 2, bottom - (bottom - top) * value / highest, middle + width / 2, bottom)
        draw.rectangle(corners, fill=colour_of(colour, rng))
        x = middle - face.getlength(name) / 2
        line = print_line(canvas, name, (x, bottom + 8), face, ink)
        if line:
            lines.append(line)
        bars.append(Bar(colour, name, value, tuple(corner / side for corner in corners)))
    draw.line((left, top, left, bottom, right, bottom), fill=ink, width=4)
    return bars, lines


def photograph(picture, rng):
    """What a camera and a file do to it: blur, light, noise, JPEG."""
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
    values = numpy.asarray(picture, numpy.float32)
    if rng.random() < 0.5:
        values = (values - 128) * rng.uniform(0.85, 1.1) + 128 + rng.uniform(-15, 12)
    if rng.random() < 0.5:
        source = numpy.random.default_rng(rng.getrandbits(32))
        values = values + source.standard_normal(values.shape, numpy.float32) * rng.uniform(1, 12)
    picture = Image.fromarray(numpy.clip(values, 0, 255).astype(numpy.uint8))
    if rng.random() < 0.5:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=rng.randint(40, 95))
        picture = Image.open(file).convert("RGB")
    return picture


def draw(seed, held_out=False, kind=None):
    rng = random.Random(zlib.crc32(f"scene {seed} {held_out}".encode()))
    scene = Scene(seed)
    chosen = rng.random()
    kind = kind or ("things" if chosen < 0.68 else "text" if chosen < 0.88 else "chart")
    values, scene.background, mean = background(rng)
    canvas = Image.fromarray(numpy.clip(values, 0, 255).astype(numpy.uint8)).resize((SIDE * FINE, SIDE * FINE))
    if kind == "chart":
        scene.bars, scene.lines = put_chart(canvas, rng)
        scene.background = None
    elif kind == "text":
        scene.lines = put_text(canvas, mean, rng, held_out)
        if scene.lines and rng.random() < 0.5:
            box = (min(line.box[1] for line in scene.lines), max(line.box[3] for line in scene.lines))
            above, below = box[0] - 0.04, 1 - box[1] - 0.06
            if max(above, below) > 0.3:
                free = (0, 0, 1, above) if above > below else (0, 1 - below, 1, 1)
                scene.things = put_things(canvas, mean, rng.randint(1, 2), rng, free)
    if not scene.lines and not scene.bars:
        scene.things = put_things(canvas, mean, rng.choices((0, 1, 2, 3, 4, 5, 6), (1, 22, 24, 20, 14, 11, 8))[0], rng)
    scene.picture = photograph(canvas.reduce(FINE), rng)
    return scene
