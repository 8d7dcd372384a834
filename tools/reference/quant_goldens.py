#!/usr/bin/env python3
"""Make quant/tests/goldens: blocks with their values as the `gguf` package decodes them, and the squared errors of ggml's
own quantizers on three kinds of data.

usage: quant_goldens.py [--out DIR] [--only NAME ...]
needs: gguf, numpy; for the K formats of ENCODED llama-cpp-python too (0.3.36, built in some 20 minutes). The `gguf` package has
ggml's quantizers of the others.

--only makes the goldens of these formats alone, and leaves the rest as it is. The three kinds of data are in the goldens' folder
and are read from there.
"""

import argparse
import ctypes
import functools
import json
import zlib
from pathlib import Path

import gguf
import numpy
from gguf import GGMLQuantizationType as Type

REPOSITORY = Path(__file__).resolve().parents[2]
FORMATS = {"f32": Type.F32, "f16": Type.F16, "bf16": Type.BF16, "q4_0": Type.Q4_0, "q4_1": Type.Q4_1, "q5_0": Type.Q5_0,
           "q5_1": Type.Q5_1, "q8_0": Type.Q8_0, "q4_k": Type.Q4_K, "q5_k": Type.Q5_K, "q6_k": Type.Q6_K, "iq4_nl": Type.IQ4_NL}
# Byte offsets of half-precision scales in a block: random bytes there would be infinite or not a number.
SCALES = {"q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q8_0": [0], "q4_k": [0, 2], "q5_k": [0, 2], "q6_k": [208],
          "iq4_nl": [0]}
ENCODED = ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"]


def decode_goldens(out: Path, names):
    for name in names:
        kind = FORMATS[name]
        generator = numpy.random.default_rng(zlib.crc32(name.encode()))
        length, size = gguf.GGML_QUANT_SIZES[kind]
        count = 2048 // length
        if name in SCALES:
            blocks = generator.integers(0, 256, (count, size), dtype=numpy.uint8)
            for offset in SCALES[name]:
                scales = (generator.standard_normal(count) * 0.02).astype(numpy.float16)
                scales[0] = 0
                blocks[:, offset:offset + 2] = scales.view(numpy.uint8).reshape(-1, 2)
            values = gguf.quants.dequantize(blocks.reshape(1, -1), kind).reshape(-1)
        else:
            exact = generator.standard_normal(2048).astype(numpy.float32)
            blocks = gguf.quants.quantize(exact.reshape(1, -1), kind).reshape(-1)
            values = gguf.quants.dequantize(blocks.reshape(1, -1), kind).reshape(-1)
        blocks.tofile(out / f"{name}.blocks")
        numpy.ascontiguousarray(values, dtype=numpy.float32).tofile(out / f"{name}.f32")


@functools.cache
def ggml():
    import llama_cpp
    folder = Path(llama_cpp.__file__).parent / "lib"
    for name in ("libggml-base.so", "libggml.so", "libllama.so"):
        if (folder / name).exists():
            library = ctypes.CDLL(str(folder / name))
            if hasattr(library, "ggml_quantize_chunk"):
                break
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                            ctypes.c_int64, ctypes.c_void_p]
    return library


def encoded(name, data):
    kind = FORMATS[name]
    try:
        return gguf.quants.quantize(data, kind)
    except NotImplementedError:
        length, size = gguf.GGML_QUANT_SIZES[kind]
        target = numpy.zeros(data.size // length * size, dtype=numpy.uint8)
        written = ggml().ggml_quantize_chunk(int(kind), data.ctypes.data, target.ctypes.data, 0, data.shape[0], data.shape[1], None)
        assert written == target.size
        return target


def squared_error(name, data):
    kind, target = FORMATS[name], encoded(name, data)
    decoded = gguf.quants.dequantize(target.reshape(1, -1), kind).reshape(data.shape)
    return float(((decoded.astype(numpy.float64) - data) ** 2).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "quant" / "tests" / "goldens")
    parser.add_argument("--only", nargs="+", choices=tuple(FORMATS), default=tuple(FORMATS))
    options = parser.parse_args()
    decode_goldens(options.out, options.only)
    path = options.out / "ggml_errors.json"
    errors = json.loads(path.read_text())
    for name, entry in errors.items():
        data = numpy.fromfile(options.out / f"{name}.data", dtype=numpy.float32).reshape(-1, entry["columns"])
        entry["ggml"].update({kind: squared_error(kind, data) for kind in ENCODED if kind in options.only})
    path.write_text(json.dumps(errors, indent=1) + "\n")


if __name__ == "__main__":
    main()
