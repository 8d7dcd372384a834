"""GIF files whose frames are smaller or larger than the canvas, and each frame as Pillow gives it.

gif_goldens.py [OUTDIR]: writes NAME.gif and NAME.json, a list of [width, height, pixels in hexadecimal], one for each frame.
"""

import json
import struct
import sys
from pathlib import Path

from PIL import Image

PALETTE = [(10, 20, 30), (200, 0, 0), (0, 200, 0), (0, 0, 200)]
OTHER = [(90, 91, 92), (255, 255, 0), (0, 255, 255), (255, 0, 255)]


def table(colours):
    return b"".join(bytes(colour) for colour in colours)


def codes(pixels, bits=2):
    """LZW without any use of its table: it is cleared before it grows."""
    clear, end, width = 1 << bits, (1 << bits) + 1, bits + 1
    stream = []
    for at, pixel in enumerate(pixels):
        if at % 2 == 0:
            stream.append(clear)
        stream.append(pixel)
    stream.append(end)
    value, size, out = 0, 0, bytearray()
    for code in stream:
        value |= code << size
        size += width
        while size >= 8:
            out.append(value & 255)
            value, size = value >> 8, size - 8
    out.append(value)
    blocks = b"".join(bytes([len(out[i : i + 255])]) + out[i : i + 255] for i in range(0, len(out), 255))
    return bytes([bits]) + blocks + b"\0"


def frame(left, top, width, height, local=None, transparent=None, dispose=0, start=0):
    flags = (dispose << 2) | (transparent is not None)
    control = b"!\xf9\x04" + bytes([flags]) + struct.pack("<H", 5) + bytes([transparent or 0, 0])
    head = b"," + struct.pack("<4H", left, top, width, height) + bytes([0x81 if local else 0])
    pixels = [(start + x + 2 * y) % 4 for y in range(height) for x in range(width)]
    return control + head + (table(local) if local else b"") + codes(pixels)


def film(width, height, *frames, palette=PALETTE, background=0):
    flags = 0x81 if palette else 0
    head = b"GIF89a" + struct.pack("<2H", width, height) + bytes([flags, background, 0])
    return head + (table(palette) if palette else b"") + b"".join(frames) + b";"


LEVELS = [(level, level, level) for level in range(4)]
FILES = {
    "whole": film(4, 3, frame(0, 0, 4, 3)),
    "smaller": film(6, 5, frame(1, 2, 3, 2), background=2),
    "smaller-transparent": film(6, 5, frame(1, 2, 3, 2, transparent=3), background=2),
    "larger": film(2, 2, frame(0, 0, 5, 4)),
    "beyond": film(4, 4, frame(3, 3, 4, 2, transparent=1)),
    "grows": film(3, 3, frame(0, 0, 3, 3), frame(1, 1, 5, 2, start=1), frame(0, 0, 7, 7, transparent=2, start=2)),
    "local": film(4, 4, frame(0, 0, 2, 4, local=OTHER), frame(1, 0, 3, 3, start=1), frame(0, 1, 2, 2, local=OTHER, transparent=0)),
    "grey": film(4, 4, frame(1, 1, 2, 2), palette=None),
    "identity": film(4, 4, frame(0, 1, 3, 2), palette=LEVELS),
    "grey-own-table": film(4, 4, frame(0, 1, 3, 2, local=LEVELS)),
    "background": film(4, 4, frame(0, 0, 4, 4), frame(1, 1, 2, 2, dispose=2, start=3), frame(0, 0, 1, 1), background=2),
    "background-transparent": film(
        4, 4, frame(0, 0, 4, 4, dispose=2, transparent=1), frame(1, 1, 2, 2, dispose=2, transparent=0), frame(3, 3, 1, 1), background=3
    ),
    "first-background": film(4, 4, frame(1, 0, 2, 3, dispose=2), frame(0, 0, 1, 1), background=1),
    "previous": film(4, 4, frame(0, 0, 4, 4), frame(1, 1, 3, 2, dispose=3, start=2), frame(0, 0, 2, 2, start=1), frame(3, 3, 1, 1)),
    "previous-beyond": film(3, 3, frame(0, 0, 3, 3), frame(2, 2, 3, 2, dispose=3, start=1), frame(0, 0, 1, 1)),
    "previous-beyond-transparent": film(3, 3, frame(0, 0, 3, 3), frame(2, 1, 3, 3, dispose=3, start=1, transparent=2), frame(0, 0, 1, 1)),
    "first-previous": film(4, 4, frame(0, 0, 4, 4, dispose=3), frame(1, 1, 1, 1), frame(3, 3, 1, 1)),
    "first-previous-transparent": film(4, 4, frame(1, 0, 3, 4, dispose=3, transparent=2), frame(1, 1, 1, 1, start=1)),
}


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/goldens/gif")
    out.mkdir(parents=True, exist_ok=True)
    for name, data in FILES.items():
        path = out / f"{name}.gif"
        path.write_bytes(data)
        frames = []
        with Image.open(path) as image:
            for at in range(image.n_frames):
                image.seek(at)
                rgb = image.convert("RGB")
                frames.append([*rgb.size, rgb.tobytes().hex()])
        (out / f"{name}.json").write_text(json.dumps(frames) + "\n")


if __name__ == "__main__":
    main()
