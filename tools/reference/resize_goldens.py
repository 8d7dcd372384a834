#!/usr/bin/env python3
"""Checksums of resized synthetic pictures, by Pillow and by torchvision (uint8, antialias, CPU with AVX2).

usage: picture_goldens.py [OUT.json]

Source pixel (x, y, c) of a `width` x `height` RGB picture: (x*7 + y*13 + c*29 + (x*y) % 251) % 256.
Each case is [width, height, side, filter (PIL's number), Pillow's CRC-32, Pillow's first bytes, torchvision's CRC-32,
torchvision's first bytes]; the CRC-32 (zlib's) is over the side*side*3 bytes of the result, rows first, RGB in each pixel;
the first bytes are 6, in hex. torchvision's fields are null where it has no such filter (box, hamming).
"""
import json
import sys
import zlib

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision.transforms import InterpolationMode as Mode
from torchvision.transforms.v2 import functional

MODES = {0: Mode.NEAREST_EXACT, 1: Mode.LANCZOS, 2: Mode.BILINEAR, 3: Mode.BICUBIC}
EVERY, MOST, CUBIC = (0, 1, 2, 3, 4, 5), (0, 1, 2, 3), (3,)
# (width, height, side): filters
CASES = {
    (123, 211, 70): EVERY,       # vertical first
    (211, 123, 70): EVERY,
    (427, 640, 224): EVERY,      # vertical first: 416 > 2 * 203
    (640, 427, 224): MOST,
    (1080, 1920, 448): (0, 1, 2, 3),  # vertical first
    (1920, 1080, 448): CUBIC,
    (120, 120, 42): EVERY,
    (120, 90, 42): EVERY,
    (1024, 1024, 224): MOST,
    (1024, 768, 224): CUBIC,
    # The order's edge: height - side against 2 * (width - side).
    (80, 90, 70): MOST, (80, 91, 70): EVERY, (80, 92, 70): MOST,
    (70, 71, 70): MOST, (69, 70, 70): MOST, (69, 71, 70): MOST, (60, 70, 70): CUBIC, (60, 75, 70): EVERY,
    (226, 228, 224): CUBIC, (226, 229, 224): CUBIC, (225, 226, 224): CUBIC, (225, 227, 224): CUBIC,
    # One pass only, none at all.
    (224, 300, 224): EVERY, (300, 224, 224): EVERY, (224, 30, 224): CUBIC, (30, 224, 224): CUBIC, (56, 56, 56): EVERY,
    # Small, narrow, extreme.
    (1, 1, 14): MOST, (1, 2, 28): EVERY, (2, 1, 28): EVERY, (3, 7, 28): EVERY, (7, 3, 56): EVERY, (1, 500, 42): EVERY,
    (500, 1, 42): MOST, (2, 900, 56): MOST, (900, 2, 56): MOST, (13, 700, 98): CUBIC, (700, 13, 98): CUBIC,
    # Growing.
    (50, 40, 224): MOST, (40, 50, 224): EVERY, (223, 222, 224): CUBIC, (31, 77, 448): CUBIC, (300, 200, 896): CUBIC,
    (447, 900, 448): CUBIC, (449, 900, 448): CUBIC,
    # Whole ratios: ties in the nearest filter and in weights.
    (84, 168, 42): EVERY, (448, 448, 224): MOST, (112, 112, 224): MOST, (126, 63, 42): (0, 3, 4), (28, 28, 896): (0, 3),
    # Nearest where the sum of steps, or float's rounding, matters.
    (427, 640, 448): (0,), (1000, 999, 896): (0,), (301, 203, 98): (0,), (11, 29, 53): (0,), (97, 89, 56): (0,), (2, 2, 83): (0,),
    (41, 123, 63): (0,), (1920, 1080, 224): (0,),
}


def source(width, height):
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return ((x * 7 + y * 13 + c * 29 + x * y % 251) % 256).astype(np.uint8)


def digest(pixels):
    data = np.ascontiguousarray(pixels).tobytes()
    return [zlib.crc32(data), data[:6].hex()]


def main():
    torch.set_num_threads(1)
    assert torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    cases = []
    for (width, height, side), filters in CASES.items():
        picture = source(width, height)
        tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1).contiguous()
        for number in filters:
            case = [width, height, side, number, *digest(np.asarray(Image.fromarray(picture).resize((side, side), number)))]
            if number in MODES:
                resized = functional.resize(tensor, [side, side], interpolation=MODES[number], antialias=True)
                case += digest(resized.permute(1, 2, 0).numpy())
            else:
                case += [None, None]
            cases.append(case)
    head = {"pixel": "(x*7 + y*13 + c*29 + (x*y) % 251) % 256", "pillow": PIL.__version__, "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "columns": ["width", "height", "side", "filter", "pillow_crc32", "pillow_first", "torchvision_crc32", "torchvision_first"]}
    out = sys.argv[1] if len(sys.argv) > 1 else "picture_goldens.json"
    body = ",\n".join("  " + json.dumps(case) for case in cases)
    with open(out, "w") as file:
        file.write(json.dumps(head)[:-1] + ',\n "cases": [\n' + body + "\n]}\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
