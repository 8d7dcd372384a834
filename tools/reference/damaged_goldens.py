"""Damaged JPEG, PNG and GIF files, and the pixels that Pillow gives of each.

damaged_goldens.py [OUT.json [COUNT [SEED]]]: a list of [name, the file in base 64, [width, height, CRC-32 of the RGB bytes]], the last null where Pillow
refuses; of a GIF file, a list of such for its frames. Files of tests/goldens/inks (four components in other than the usual sampling) come first, as they are.
"""

import base64
import io
import json
import random
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from gif_goldens import film as gif_film
from gif_goldens import frame as gif_frame
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    f"{mode}{'-restarts' if restarts else ''}{'-progressive' if progressive else ''}": (mode, restarts, progressive)
    for mode in ("grey", "420", "422", "444", "cmyk")
    for restarts in (0, 1)
    for progressive in (0, 1)
}
FAULTS = ["flip", "byte", "cut", "insert", "ff", "ffff", "end", "marker", "several", "wild", "scan", "tail", "truncated"]


def picture(rnd, width, height):
    noise = np.random.default_rng(rnd.randrange(1 << 30))
    small = noise.integers(0, 256, (max(2, height // 12), max(2, width // 12), 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC)).astype(int)
    return Image.fromarray(np.clip(image + noise.normal(0, rnd.choice([2, 6, 14]), image.shape), 0, 255).astype(np.uint8))


def base(rnd, kind, largest):
    mode, restarts, progressive = KINDS[kind]
    image = picture(rnd, rnd.randint(20, largest), rnd.randint(20, largest))
    options = dict(quality=rnd.choice([60, 75, 85, 92]), optimize=bool(rnd.getrandbits(1)), progressive=bool(progressive))
    if mode in ("grey", "cmyk"):
        image = image.convert({"grey": "L", "cmyk": "CMYK"}[mode])
    else:
        options["subsampling"] = {"420": 2, "422": 1, "444": 0}[mode]
    if restarts:
        options["restart_marker_blocks"] = rnd.choice([1, 3, 7, 20])
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def scans(data):
    """(start, end) of each scan's data."""
    found, at = [], 2
    while at + 4 <= len(data) and data[at + 1] != 0xD9:
        marker = data[at + 1]
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
        if marker == 0xDA:
            start = at
            while at + 1 < len(data) and not (data[at] == 0xFF and data[at + 1] not in (0, *range(0xD0, 0xD8))):
                at += 1
            found.append((start, at))
    return found


def damaged(rnd, data, fault):
    out, places = bytearray(data), [place for place in scans(data) if place[0] < place[1]]
    if not places:
        return data
    start, end = rnd.choice(places)
    at = rnd.randrange(start, end)
    if fault == "flip":
        out[at] ^= 1 << rnd.randrange(8)
    elif fault == "byte":
        out[at] = (out[at] + rnd.randint(1, 255)) & 255
    elif fault == "cut":
        del out[at : at + min(rnd.choice([1, 2, 5, 40]), end - at)]
    elif fault == "insert":
        out[at:at] = bytes(rnd.randrange(256) for _ in range(rnd.choice([1, 2, 5, 40])))
    elif fault == "ff":
        out.insert(at, 255)
    elif fault == "ffff":
        zero = data.find(b"\xff\x00", start, end)
        out[zero if zero > 0 else at : zero if zero > 0 else at] = b"\xff"
    elif fault == "end":
        out[at:at] = b"\xff\xd9"
    elif fault == "marker":
        out[at:at] = bytes([255, rnd.choice([0xD0 + rnd.randrange(8), 0xE0, 0xDB, 0xC4, 0xDA, 0xDD, 0xFE]), 0, rnd.choice([2, 4, 20])])
    elif fault == "several":
        for _ in range(rnd.randint(2, 8)):
            out = bytearray(damaged(rnd, bytes(out), rnd.choice(FAULTS[:5])))
    elif fault == "wild":
        for place in range(at, min(at + 60, end)):
            out[place] = rnd.randrange(256)
    elif fault == "scan":
        which = rnd.randrange(len(places))
        del out[data.rfind(b"\xff\xda", 0, places[which][0]) : places[which][1]]
    elif fault == "tail":
        del out[-rnd.choice([1, 2, 3, 4, 6]) :]
        out += bytes(rnd.choice([0, 0, 1, 5, 20, 600]))
    else:
        out = out[: rnd.randint(places[0][0] + 1, len(out) - 1)]
    return bytes(out)


def chunks(data):
    found, at = [], 8
    while at < len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        found.append((data[at + 4 : at + 8], at, at + 12 + length))
        at += 12 + length
    return found


def pngs(rnd):
    def png(mode, **options):
        out = io.BytesIO()
        picture(rnd, 30, 20).convert(mode).save(out, "PNG", **options)
        return out.getvalue()

    def wrong(data, kind):
        out = bytearray(data)
        end = next(end for name, _, end in chunks(data) if name == kind)
        out[end - 1] ^= 0x55
        return bytes(out)

    for mode in ("RGB", "L", "P", "RGBA"):
        data = png(mode)
        (_, start, end), (_, last, _) = next(c for c in chunks(data) if c[0] == b"IDAT"), chunks(data)[-1]
        yield f"png-{mode}-sound", data
        yield f"png-{mode}-pixels-sum", wrong(data, b"IDAT")
        yield f"png-{mode}-header-sum", wrong(data, b"IHDR")
        yield f"png-{mode}-end-sum", wrong(data, b"IEND")
        yield f"png-{mode}-no-end", data[:last]
        yield f"png-{mode}-sum-cut", data[: end - 2]
        yield f"png-{mode}-adler-cut", data[: end - 6]
        yield f"png-{mode}-half", data[: (start + end) // 2]
        yield f"png-{mode}-behind", data + b"junk"
        body = data[start + 8 : end - 4]
        parts = [body[i : i + 50] for i in range(0, len(body), 50)]
        split = b"".join(struct.pack(">I", len(p)) + b"IDAT" + p + bytes(4) for p in parts)
        yield f"png-{mode}-parts", data[:start] + split + data[last:]
        text = b"tEXtComment\0hello"
        yield f"png-{mode}-text-sum", data[:start] + struct.pack(">I", len(text) - 4) + text + bytes(4) + data[start:]
        unknown = b"ABCDhello"
        unknown = struct.pack(">I", 5) + unknown + struct.pack(">I", zlib.crc32(unknown))
        yield f"png-{mode}-unknown", data[:start] + unknown + data[start:]


def gif(rnd, large):
    """A film, or one picture, at times with rows in four passes."""
    sides = (rnd.randint(1, 60), rnd.randint(1, 40)) if not large else (400, 300)
    colours = rnd.choice([2, 4, 16, 100, 256])
    images = [picture(rnd, *sides).quantize(colours) for _ in range(rnd.choice([1, 1, 3]))]
    out = io.BytesIO()
    options = dict(transparency=rnd.randrange(colours)) if rnd.random() < 0.3 else {}
    images[0].save(out, "GIF", save_all=len(images) > 1, append_images=images[1:], interlace=rnd.getrandbits(1), disposal=rnd.choice([0, 1, 2, 3]),
                   optimize=bool(rnd.getrandbits(1)), **options)
    return out.getvalue()


def damaged_gif(rnd, data):
    out = bytearray(data)
    for _ in range(rnd.choice([1, 1, 1, 3])):
        at = rnd.randrange(6, len(out))
        fault = rnd.choice(["flip", "flip", "flip", "byte", "cut", "insert", "end"])
        if fault == "flip":
            out[at] ^= 1 << rnd.randrange(8)
        elif fault == "byte":
            out[at] = rnd.randrange(256)
        elif fault == "cut":
            del out[at : at + rnd.choice([1, 2, 9])]
        elif fault == "insert":
            out[at:at] = bytes(rnd.randrange(256) for _ in range(rnd.choice([1, 2, 9])))
        else:
            out = out[: max(at, 7)]
    return bytes(out)


def built_gif(rnd):
    """A sound film whose frames have any place, size, table (own, grey, none), transparent index and disposal."""
    width, height = rnd.randint(1, 8), rnd.randint(1, 8)
    grey = [(level, level, level) for level in range(4)]
    tables = lambda: rnd.choice([None, None, grey, [tuple(rnd.randrange(256) for _ in range(3)) for _ in range(4)]])

    def frame():
        part = (rnd.randint(0, width), rnd.randint(0, height), rnd.randint(1, 8), rnd.randint(1, 8))
        return gif_frame(*part, tables(), rnd.choice([None, None, *range(5)]), rnd.randrange(5), rnd.randrange(4))

    return gif_film(width, height, *(frame() for _ in range(rnd.randint(1, 5))), palette=tables(), background=rnd.randrange(5))


def film(data):
    """The pixels of each frame; null where Pillow refuses one of them, False where it fails in its own code, which Gemmule does not."""
    frames = []
    try:
        with Image.open(io.BytesIO(data)) as image:
            while True:
                rgb = image.convert("RGB")
                frames.append([*rgb.size, zlib.crc32(rgb.tobytes())])
                image.seek(image.tell() + 1)
    except EOFError:
        return frames or None
    except AssertionError:
        return False
    except Exception as error:
        return False if "image has no palette" in str(error) else None


def png_kinds(rnd):
    """Sound files of every kind of pixel and number of bits, with a transparent one or without."""
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    noise = np.random.default_rng(rnd.randrange(1 << 30))
    width, height = 9, 6
    for kind, samples, depths in ((0, 1, (1, 2, 4, 8, 16)), (2, 3, (8, 16)), (3, 1, (1, 2, 4, 8)), (4, 2, (8, 16)), (6, 4, (8, 16))):
        for bits in depths:
            numbers = noise.integers(0, 1 << bits, (height, width * samples)).astype(">u2")
            lines = np.unpackbits(numbers.view(np.uint8).reshape(height, -1, 2), axis=2)[:, :, 16 - bits :].reshape(height, -1)
            body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + np.packbits(line).tobytes() for line in lines)))
            head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", width, height, bits, kind, 0, 0, 0))
            if kind == 3:
                head += chunk(b"PLTE", noise.integers(0, 256, 3 << bits, dtype=np.uint8).tobytes())
            yield f"png-kind-{kind}-{bits}", head + body + chunk(b"IEND", b"")
            if kind in (0, 2, 3):
                clear = bytes([0, 100]) if kind == 3 else numbers[0, :samples].tobytes()
                yield f"png-kind-{kind}-{bits}-clear", head + chunk(b"tRNS", clear) + body + chunk(b"IEND", b"")


def pixels(data):
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith("I;16"):
                # Gemmule keeps the upper byte, see `to_rgb`.
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            rgb = image.convert("RGB")
    except Exception:
        return None
    return [*rgb.size, zlib.crc32(rgb.tobytes())]


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "tests/goldens/damaged.json")
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 160
    rnd = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    files = [(path.stem, path.read_bytes()) for path in sorted((ROOT / "tests/goldens/inks").glob("*.jpg"))]
    kinds = list(KINDS)
    for number in range(count):
        kind, fault = kinds[number % len(kinds)], FAULTS[number // len(kinds) % len(FAULTS)]
        files.append((f"{kind}-{fault}", damaged(rnd, base(rnd, kind, 160 if count > 400 else 48), fault)))
    files += [*pngs(rnd), *png_kinds(rnd)]
    rows = [[name, base64.b64encode(data).decode(), pixels(data)] for name, data in files]
    for number in range(count // 2):
        data = gif(rnd, count > 400 and number % 20 == 0)
        # Sizes that a flipped bit makes huge say nothing about pixels.
        data = data if number % 10 == 0 else damaged_gif(rnd, data)
        if len(data) < 10 or max(struct.unpack("<2H", data[6:10])) < 2000:
            rows.append([f"gif-{number}", base64.b64encode(data).decode(), film(data)])
    for number in range(count // 4):
        data = built_gif(rnd)
        rows.append([f"gif-built-{number}", base64.b64encode(data).decode(), film(data)])
    rows = [row for row in rows if row[2] is not False]
    out.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(len(rows), "files,", sum(row[2] is None for row in rows), "refused,", out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
