"""TIFF files, and the pixels that Pillow gives of each.

    pip install pillow numpy
    python tools/reference/tiff_goldens.py [--out tests/goldens/tiff]

Writes NAME.tif, as small as they show what they are for, and pixels.json: [width, height, CRC-32 of the RGB bytes] by name, as
`ImageOps.exif_transpose(Image.open(name)).convert("RGB")` gives them (of 16-bit grey the upper bytes); null where the file is refused here, and not by Pillow.
"""

import argparse
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

GOLDENS = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "tiff"
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def picture():
    small = np.random.default_rng(3).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((21, 13), Image.BICUBIC)


def tiff(width, height, rows, order="<", **tags):
    """A file of one strip. Tags are (type, values) by their names below."""
    numbers = dict(bits=258, compression=259, photometric=262, fill_order=266, samples=277, colours=320, extra=338)
    entries = {256: (3, [width]), 257: (3, [height]), 273: (4, [8]), 278: (3, [height]), 279: (4, [len(rows)])}
    entries |= {numbers[name]: value for name, value in tags.items()}
    data = b"II*\0" if order == "<" else b"MM\0*"
    body = rows + b"\0" * (len(rows) % 2)
    directory, behind, start = b"", b"", 8 + len(body) + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}{'HI'[kind == 4]}", *values)
        if len(packed) > 4:
            packed, behind = struct.pack(f"{order}I", start + len(behind)), behind + packed
        directory += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    return data + struct.pack(f"{order}I", 8 + len(body)) + body + struct.pack(f"{order}H", len(entries)) + directory + bytes(4) + behind


def packed(indices, bits):
    """Rows of pixels of so many bits, each row from a byte on."""
    rows = [np.unpackbits(row[:, None], axis=1)[:, 8 - bits :].reshape(-1) for row in indices]
    return b"".join(np.packbits(row).tobytes() for row in rows)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=GOLDENS)
    folder = arguments.parse_args().out
    image, pixels = picture(), {}
    kept = ["1", "L", "RGB", "RGBA", "CMYK"]
    for mode in kept:
        image.convert(mode).save(folder / f"{mode}-None.tif")
    image.convert("1").save(folder / "1-group4.tif", compression="group4")
    image.convert("L").save(folder / "L-tiff_lzw.tif", compression="tiff_lzw")
    for kind in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        image.save(folder / f"RGB-{kind}.tif", compression=kind)
    # Palettes, of every number of bits, and alpha beside grey and palettes.
    image.quantize(200).save(folder / "P-None.tif")
    image.quantize(200).save(folder / "P-tiff_lzw.tif", compression="tiff_lzw")
    image.quantize(40).convert("PA").save(folder / "PA-None.tif")
    image.convert("LA").save(folder / "LA-tiff_lzw.tif", compression="tiff_lzw")
    grey = np.asarray(image.convert("L"))
    colours = np.random.default_rng(5).integers(0, 65536, (3, 256))
    for bits in (1, 2, 4):
        indices = grey >> (8 - bits)
        table = [int(level) for level in colours[:, : 1 << bits].reshape(-1)]
        for order, name in (("<", "little"), (">", "big")):
            (folder / f"palette-{bits}-{name}.tif").write_bytes(
                tiff(21, 13, packed(indices, bits), order, bits=(3, [bits]), photometric=(3, [3]), colours=(3, table)))
        for zero in (0, 1):
            (folder / f"grey-{bits}-{zero}.tif").write_bytes(
                tiff(21, 13, packed(indices, bits), bits=(3, [bits]), photometric=(3, [zero])))
    (folder / "grey-8-0.tif").write_bytes(tiff(21, 13, grey.tobytes(), bits=(3, [8]), photometric=(3, [0])))
    # Bits in the other order.
    for bits in (1, 4, 8):
        rows = packed(grey >> (8 - bits), bits).translate(REVERSED)
        (folder / f"reversed-{bits}.tif").write_bytes(
            tiff(21, 13, rows, bits=(3, [bits]), photometric=(3, [1]), fill_order=(3, [2])))
    lines = folder / "lines.tif"
    image.convert("1").save(lines, compression="group4")
    with Image.open(lines) as scan:
        (start,), (length,) = scan.tag_v2[273], scan.tag_v2[279]
    strip = lines.read_bytes()[start : start + length]
    lines.unlink()
    (folder / "reversed-group4.tif").write_bytes(
        tiff(21, 13, strip.translate(REVERSED), bits=(3, [1]), compression=(3, [4]), photometric=(3, [1]), fill_order=(3, [2])))
    levels = np.arange(21 * 13, dtype=np.uint16).reshape(13, 21) * 233
    Image.fromarray(levels).save(folder / "I16-None.tif")
    # A fourth sample that means nothing, beside differences of neighbours; colours multiplied by their opacity; inks with black.
    Image.merge("RGBX", [*image.split(), image.convert("L")]).save(
        folder / "RGBX-predictor.tif", compression="tiff_adobe_deflate", tiffinfo={317: 2})
    noise = np.random.default_rng(7).integers(0, 256, (13, 21, 4), dtype=np.uint8)
    (folder / "multiplied.tif").write_bytes(
        tiff(21, 13, noise.tobytes(), bits=(3, [8] * 4), photometric=(3, [2]), samples=(3, [4]), extra=(3, [1])))
    Image.frombytes("CMYK", (21, 13), noise.tobytes()).save(folder / "CMYK-black.tif")
    image.save(folder / "RGB-big.tif", big_tiff=True)
    image.save(folder / "turned.tif", tiffinfo={274: 6})
    image.save(folder / "turned-xmp.tif", tiffinfo={700: b'<x tiff:Orientation="8"/>'})
    refused = {"F-None": image.convert("F"), "I-None": image.convert("I"), "YCbCr-None": image.convert("YCbCr")}
    for name, other in refused.items():
        other.save(folder / f"{name}.tif")
    image.save(folder / "RGB-zstd.tif", compression="zstd")
    image.convert("1").save(folder / "1-group3.tif", compression="group3")
    # Tiles in planes that reach beyond the picture, as libtiff's tools make them.
    refused = {f"{name}.tif" for name in (*refused, "RGB-zstd", "1-group3", "tiles-in-planes")}
    for path in sorted(folder.glob("*.tif")):
        with Image.open(path) as opened:
            if opened.mode.startswith("I;16"):
                # Gemmule keeps the upper byte, see `to_rgb`.
                opened = Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8))
            rgb = ImageOps.exif_transpose(opened).convert("RGB")
        pixels[path.name] = None if path.name in refused else [*rgb.size, zlib.crc32(rgb.tobytes())]
    (folder / "pixels.json").write_text(json.dumps(pixels, indent=1) + "\n")
    print(f"{len(pixels)} files")


if __name__ == "__main__":
    main()
