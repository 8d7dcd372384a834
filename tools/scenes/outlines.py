"""Outlines of things, as parts in a square from −1 to 1 (y downwards): `(tint, kind, numbers)`.

The tint `main` takes the thing's colour, the others are fixed. Kinds: `polygon` (a list of points), `ellipse` (a box), `ring` (outer box
and the share of its radius that is a hole), `arc` (box, start and end in degrees, width).
"""

import math


def regular(corners, turn=-90.0, radius=1.0):
    angles = [math.radians(turn + 360.0 * corner / corners) for corner in range(corners)]
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def star(points=5, inner=0.42):
    outline = []
    for outer, between in zip(regular(points), regular(points, turn=-90.0 + 180.0 / points, radius=inner)):
        outline += [outer, between]
    return outline


def heart():
    outline = []
    for step in range(48):
        t = 2 * math.pi * step / 48
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        outline.append((x / 17, -(y + 2.5) / 15))
    return outline


def moon():
    outer = [(math.cos(a), math.sin(a)) for a in (math.radians(d) for d in range(50, 311, 10))]
    # The inner edge is an arc around a centre to the right.
    start, end = outer[-1], outer[0]
    centre, radius = 0.75, math.hypot(start[0] - 0.75, start[1])
    first, last = math.atan2(start[1], start[0] - centre), math.atan2(end[1], end[0] - centre)
    first, last = first % (2 * math.pi), last % (2 * math.pi)
    inner = [first + (last - first) * step / 16 for step in range(1, 16)]
    return outer + [(centre + radius * math.cos(a), radius * math.sin(a)) for a in inner]


def box(x_min, y_min, x_max, y_max):
    return [(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)]


def half_disc(radius, base, flat=1.0):
    return [(radius * math.cos(a), base - flat * radius * math.sin(a)) for a in (math.radians(d) for d in range(0, 181, 10))]


def petals(count=6, distance=0.45, radius=0.36, centre=(0.0, -0.25)):
    parts = []
    for x, y in regular(count, radius=distance):
        x, y = x + centre[0], y + centre[1]
        parts.append(("main", "ellipse", (x - radius, y - radius, x + radius, y + radius)))
    return parts


def of_main(points):
    return [("main", "polygon", points)]


CROSS = [(-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33), (0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33),
         (-1, -0.33), (-0.33, -0.33)]
ARROW = [(-1, -0.3), (0.15, -0.3), (0.15, -0.75), (1, 0), (0.15, 0.75), (0.15, 0.3), (-1, 0.3)]

# name: parts, the degrees that it may be turned by (either way), whether it may be mirrored
OUTLINES = {
    "circle": ([("main", "ellipse", (-1, -1, 1, 1))], 0, False),
    "square": (of_main(box(-0.9, -0.9, 0.9, 0.9)), 12, False),
    "rectangle": (of_main(box(-1, -0.5, 1, 0.5)), 12, False),
    "triangle": (of_main([(0, -0.9), (1, 0.85), (-1, 0.85)]), 25, False),
    "diamond": (of_main([(0, -1), (0.65, 0), (0, 1), (-0.65, 0)]), 12, False),
    "hexagon": (of_main(regular(6)), 30, False),
    "star": (of_main(star()), 36, False),
    "heart": (of_main(heart()), 20, False),
    "cross": (of_main(CROSS), 12, False),
    "ring": ([("main", "ring", (-1, -1, 1, 1, 0.55))], 0, False),
    "moon": (of_main(moon()), 25, True),
    "arrow": (of_main(ARROW), 180, False),
    "house": (
        [("main", "polygon", box(-0.8, -0.15, 0.8, 0.95)), ("dark", "polygon", [(-1, -0.1), (0, -0.95), (1, -0.1)]),
         ("wood", "polygon", box(-0.18, 0.35, 0.18, 0.95)), ("glass", "polygon", box(0.36, 0.1, 0.64, 0.4)),
         ("glass", "polygon", box(-0.64, 0.1, -0.36, 0.4))], 4, False),
    "tree": (
        [("wood", "polygon", box(-0.16, 0.2, 0.16, 1)), ("main", "ellipse", (-0.75, -1, 0.75, 0.45)),
         ("main", "ellipse", (-0.85, -0.45, 0.1, 0.4)), ("main", "ellipse", (-0.1, -0.45, 0.85, 0.4))], 4, True),
    "car": (
        [("main", "polygon", [(-1, 0.0), (-0.62, -0.06), (-0.35, -0.5), (0.35, -0.5), (0.65, -0.04), (1, 0.04), (1, 0.4), (-1, 0.4)]),
         ("glass", "polygon", [(-0.5, -0.06), (-0.3, -0.4), (-0.03, -0.4), (-0.03, -0.06)]),
         ("glass", "polygon", [(0.06, -0.06), (0.06, -0.4), (0.3, -0.4), (0.5, -0.06)]),
         ("tyre", "ellipse", (-0.74, 0.15, -0.26, 0.63)), ("tyre", "ellipse", (0.26, 0.15, 0.74, 0.63)),
         ("steel", "ellipse", (-0.6, 0.29, -0.4, 0.49)), ("steel", "ellipse", (0.4, 0.29, 0.6, 0.49))], 6, True),
    "fish": (
        [("main", "ellipse", (-1, -0.5, 0.6, 0.5)), ("main", "polygon", [(0.4, 0), (1, -0.5), (0.85, 0), (1, 0.5)]),
         ("main", "polygon", [(-0.35, -0.42), (0.2, -0.72), (0.25, -0.3)]), ("paper", "ellipse", (-0.75, -0.25, -0.5, 0.0)),
         ("tyre", "ellipse", (-0.69, -0.19, -0.57, -0.07))], 15, True),
    "cup": (
        [("main", "arc", (0.2, -0.5, 1, 0.45, -100, 100, 0.17)), ("main", "polygon", [(-0.8, -0.8), (0.55, -0.8), (0.45, 0.85), (-0.7, 0.85)]),
         ("dark", "ellipse", (-0.8, -0.95, 0.55, -0.65))], 6, True),
    "flower": (
        [("leaf", "polygon", box(-0.06, 0.1, 0.06, 1)), ("leaf", "polygon", [(0, 0.85), (0.4, 0.45), (0.5, 0.7)]), *petals(),
         ("sun", "ellipse", (-0.27, -0.52, 0.27, 0.02))], 8, True),
    "boat": (
        [("main", "polygon", [(-1, 0.35), (1, 0.35), (0.65, 0.9), (-0.65, 0.9)]), ("wood", "polygon", box(-0.06, -0.95, 0.05, 0.35)),
         ("paper", "polygon", [(0.1, -0.85), (0.8, 0.2), (0.1, 0.2)]), ("main", "polygon", [(-0.1, -0.6), (-0.1, 0.2), (-0.65, 0.2)])], 6, True),
    "mushroom": (
        [("cream", "polygon", [(-0.25, 0.0), (0.25, 0.0), (0.35, 0.95), (-0.35, 0.95)]), ("main", "polygon", half_disc(1.0, 0.15, 1.1)),
         ("paper", "ellipse", (-0.6, -0.45, -0.3, -0.15)), ("paper", "ellipse", (0.05, -0.75, 0.35, -0.45)),
         ("paper", "ellipse", (0.4, -0.3, 0.62, -0.08))], 8, True),
    "umbrella": (
        [("dark", "polygon", box(-0.06, -0.2, 0.06, 0.8)), ("dark", "arc", (-0.34, 0.6, 0.06, 1.0, 0, 180, 0.12)),
         ("main", "polygon", half_disc(1.0, 0.05, 1.0)), ("dark", "polygon", [(-0.05, -1.05), (0.05, -1.05), (0.05, -0.9), (-0.05, -0.9)])], 10, True),
    "cloud": (
        [("main", "ellipse", (-1, -0.2, -0.1, 0.6)), ("main", "ellipse", (-0.65, -0.65, 0.35, 0.4)), ("main", "ellipse", (-0.1, -0.4, 0.75, 0.45)),
         ("main", "ellipse", (0.2, -0.1, 1, 0.6)), ("main", "polygon", box(-0.6, 0.1, 0.6, 0.6))], 3, True),
    "apple": (
        [("main", "ellipse", (-0.95, -0.6, 0.2, 0.95)), ("main", "ellipse", (-0.2, -0.6, 0.95, 0.95)), ("wood", "polygon", [(-0.06, -0.4), (0.06, -1), (0.17, -0.95), (0.06, -0.4)]),
         ("leaf", "polygon", [(0.1, -0.65), (0.35, -0.95), (0.65, -0.9), (0.4, -0.65)])], 8, True),
    "bottle": (
        [("main", "polygon", [(-0.14, -1), (0.14, -1), (0.14, -0.45), (0.42, -0.1), (0.42, 1), (-0.42, 1), (-0.42, -0.1), (-0.14, -0.45)]),
         ("paper", "polygon", box(-0.42, 0.2, 0.42, 0.6)), ("dark", "polygon", box(-0.17, -1, 0.17, -0.82))], 10, False),
}
SHAPES = tuple(OUTLINES)

TINTS = {
    "wood": (121, 85, 58), "glass": (190, 220, 235), "tyre": (35, 35, 38), "steel": (185, 188, 192), "paper": (240, 240, 235),
    "leaf": (70, 140, 60), "sun": (245, 200, 60), "cream": (235, 222, 196),
}

# Ranges around which a colour's name is not in doubt: hue in degrees, saturation and value in percent (from, to).
COLOURS = {
    "red": ((-8, 8), (75, 100), (65, 100)),
    "orange": ((22, 34), (80, 100), (90, 100)),
    "yellow": ((50, 60), (70, 100), (88, 100)),
    "green": ((95, 150), (55, 100), (40, 85)),
    "blue": ((208, 238), (65, 100), (55, 100)),
    "purple": ((268, 288), (50, 95), (45, 80)),
    "pink": ((325, 345), (30, 55), (92, 100)),
    "brown": ((18, 30), (55, 80), (32, 52)),
    "black": ((0, 360), (0, 12), (3, 14)),
    "white": ((0, 360), (0, 4), (94, 100)),
    "gray": ((0, 360), (0, 8), (42, 62)),
}
PLURALS = {"cross": "crosses", "fish": "fish"}


def plural(phrase):
    """The plural of a phrase's last word."""
    before, space, word = phrase.rpartition(" ")
    return before + space + PLURALS.get(word, word + "s")
