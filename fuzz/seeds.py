"""Seeds of the fuzz targets, made of the golden files: seeds.py (writes fuzz/corpus/TARGET/seed-NAME)."""

import base64
import json
import random
import struct
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GOLDENS = ROOT / "tests/goldens"
CORPUS = ROOT / "fuzz/corpus"


def put(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(data if isinstance(data, bytes) else data.encode())


def key(name, kind, payload):
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + payload


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(keys, tensors):
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys)
    for name, sizes, kind, offset in tensors:
        head += text(name) + struct.pack("<I", len(sizes)) + b"".join(struct.pack("<Q", size) for size in sizes)
        head += struct.pack("<IQ", kind, offset)
    return head + bytes(-len(head) % 32) + bytes(256)


def main():
    rnd = random.Random(1)
    for number in range(6):
        put("calls", str(number), rnd.randbytes(400))
    architecture = key("general.architecture", 8, text("paligemma2"))
    put("gguf", "empty", gguf([], []))
    put("gguf", "keys", gguf([architecture, key("general.alignment", 4, struct.pack("<I", 32)), key("a", 9, struct.pack("<IQ", 6, 2) + bytes(8)),
                              key("b", 9, struct.pack("<IQ", 8, 1) + text("x"))], []))
    for kind in (0, 1, 2, 8, 12, 13, 14, 30, 39, 40):
        put("gguf", f"type-{kind}", gguf([architecture], [("t", [256], kind, 0), ("u", [32, 1], 0, 64)]))
    window = GOLDENS / "window-f32"
    names = ["config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json",
             "special_tokens_map.json", "added_tokens.json", "tokenizer.json"]
    for number, name in enumerate(names):
        path = window / name
        value = path.read_text() if path.exists() else "{}"
        if name == "processor_config.json":
            value = json.dumps({"image_processor": json.loads((window / "preprocessor_config.json").read_text())})
        if name == "added_tokens.json":
            value = json.dumps({"<new>": 1800})
        if name != "tokenizer.json":
            put("settings", name, bytes([number]) + json.dumps(json.loads(value)).encode())
    put("settings", "rules", bytes([1]) + json.dumps({"eos_token_id": [1, 3], "repetition_penalty": 1.2, "no_repeat_ngram_size": 2,
        "bad_words_ids": [[5, 6]], "sequence_bias": [[[7], 1.5]], "suppress_tokens": [9], "min_length": 4, "forced_eos_token_id": 1,
        "exponential_decay_length_penalty": [3, 1.1], "do_sample": True, "num_beams": 4, "unknown": float("nan")}).encode())
    put("settings", "rope", bytes([0]) + json.dumps(json.loads((window / "config.json").read_text()) | {"rope_scaling": {"type": "linear"}}).encode())
    small = {"version": "1.0", "added_tokens": [{"id": 0, "content": "<pad>", "special": True}, {"id": 2, "content": "<bos>", "special": True}],
             "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
             "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
             "post_processor": None,
             "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
             "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
                       "vocab": {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "a": 4, "b": 5, "ab": 6, "▁": 7, "<0x0A>": 8, "▁a": 9},
                       "merges": [["a", "b"], "▁ a"]}}
    put("tokenizer", "small", json.dumps(small, ensure_ascii=False))
    for name, change in {
        "prefix": {"model": small["model"] | {"continuing_subword_prefix": "##"}},
        "charsmap": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}},
        "prepend": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}] * 4}},
        "template": {"post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}}},
        "metaspace": {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}},
        "strip": {"decoder": {"type": "Strip", "content": " ", "start": 1, "stop": 0}},
        "flags": {"added_tokens": small["added_tokens"] + [{"id": 6, "content": "ab", "lstrip": True, "rstrip": True, "single_word": True, "normalized": True}]},
    }.items():
        put("tokenizer", name, json.dumps(small | change, ensure_ascii=False))
    put("token-table", "small", "20 <unk>\n30 <bos>\n1-1 a\n1-2 b\n1-3 ab\n60 <0x0A>\n40 <loc0000>\n1-4 ▁a\n1-5 ▁\n50 unused")
    for name, value in {"words": "a red circle at the top", "spaces": "  two   spaces ", "other": "ß 🦀 ꀀ\n\t"}.items():
        put("table-and-tokenizer", name, value)
    metadata = {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "u": {"dtype": "BF16", "shape": [1], "data_offsets": [8, 10]}}
    for name, header in {"two": metadata, "f64": {"t": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}, "none": {}}.items():
        head = json.dumps(header).encode()
        put("safetensors", name, struct.pack("<Q", len(head)) + head + bytes(max((v["data_offsets"][1] for v in header.values()), default=0)))
    put("safetensors", "lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    put("index", "one", json.dumps({"weight_map": {"language_model.model.norm.weight": "model-00001-of-00001.safetensors"}}))
    put("index", "outside", json.dumps({"weight_map": {"t": "../x"}}))
    put("npz", "small", (GOLDENS / "masks/other-shapes.npz").read_bytes()[:2048])
    adapter = json.loads((GOLDENS / "lora/plain/adapter_config.json").read_text())
    put("lora", "config", b"\0" + json.dumps(adapter).encode())
    put("lora", "patterns", b"\0" + json.dumps(adapter | {"rank_pattern": {"q_proj": 4, "(k|v)_proj": 4}, "use_dora": True, "trainable_token_indices": [1, 2]}).encode())
    head = json.dumps({f"base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_{side}.weight":
                       {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * i, 16 * i + 16]} for i, side in enumerate("AB")}).encode()
    put("lora", "tensors", b"\1" + struct.pack("<Q", len(head)) + head + bytes(32))
    damaged = json.loads((GOLDENS / "damaged.json").read_text())
    seen = set()
    for name, data, _ in damaged:
        data = base64.b64decode(data)
        target = "png" if name.startswith("png") else "jpeg"
        if name not in seen and len(data) < 1500 and len(list((CORPUS / target).glob("*")) if (CORPUS / target).exists() else []) < 24:
            seen.add(name)
            put(target, name, data)
    put("jpeg", "gray", (GOLDENS / "jpeg/gray.jpg").read_bytes()[:4000])
    for path in sorted((GOLDENS / "gif").glob("*.gif")):
        put("gif", path.stem, path.read_bytes())
    from PIL import Image
    import io

    def encoded(kind, mode="RGB", size=(9, 7), **options):
        image = Image.frombytes("RGB", size, bytes((x * 7) % 256 for x in range(size[0] * size[1] * 3))).convert(mode)
        out = io.BytesIO()
        image.save(out, kind, **options)
        return out.getvalue()

    for mode in ("RGB", "L", "P", "1"):
        put("bmp", mode, encoded("BMP", mode))
    put("webp", "lossy", encoded("WEBP"))
    put("webp", "lossless", encoded("WEBP", lossless=True))
    put("webp", "alpha", encoded("WEBP", "RGBA"))
    frames = [Image.new("RGB", (6, 5), (i * 60, 0, 0)) for i in range(3)]
    out = io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    put("webp", "film", out.getvalue())
    for mode, compression in (("RGB", None), ("RGB", "tiff_lzw"), ("L", "tiff_adobe_deflate"), ("CMYK", None), ("1", "group4"), ("RGB", "packbits"), ("P", None)):
        put("tiff", f"{mode}-{compression}", encoded("TIFF", mode, compression=compression))
    jpeg = encoded("JPEG")
    put("mjpeg", "two", jpeg + jpeg)
    put("mjpeg", "http", b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\n\r\n--b\r\n" + jpeg + b"\r\n--b\r\n" + jpeg)
    put("mjpeg", "begun", jpeg[100:] + jpeg)
    put("y4m", "two", b"YUV4MPEG2 W2 H2 F30:1 Ip C420jpeg\nFRAME\n" + bytes(6) + b"FRAME\n" + bytes(6))
    put("y4m", "grey", b"YUV4MPEG2 W2 H1 Cmono XCOLORRANGE=FULL\nFRAME\n\0\xff")
    for number in range(9):
        put("raw", f"format-{number}", bytes([number, 4, 2, 16, 0]) + bytes(200))
    put("mask-runs", "small", bytes([4, 4]) + b"0H8")
    put("mask-runs", "runs", bytes([20, 10]) + b"R1`5")
    for name, value in {"objects": "<loc0000><loc0341><loc0682><loc1023> cat ; <loc0001><loc0002><loc0003><loc0004>", "prose": "a cat ; a dog",
                        "segments": "<loc0001><loc0002><loc0003><loc0004>" + "<seg001>" * 16 + " cat", "half": "<loc0001><loc0002> x <seg001>"}.items():
        put("answer", name, value)
    for name, value in {"choices": "a|b|<loc0001>", "pattern": "an? (red|blue) [a-z]+", "codes": "(<loc[0-9]{4}>){4} cat", "broken": "[a-"}.items():
        put("form", name, value.encode() + b"\n" + bytes(range(4, 24)))
    for name, value in {"plain": b'{"image": "a.jpg", "prompt": "caption en"}\n\n{"images": ["a", "b"], "prefix": "x", "suffix": "y"}\r\n', "bom": b"\xef\xbb\xbf{}\n",
                        "array": b"[{}]", "utf16": b"\xff\xfe{\0}\0"}.items():
        put("rows", name, value)
    image = struct.pack("<4B", 0, 1, 0, 0) + struct.pack("<iI", 1, 2) + struct.pack("<I", 4) + b"cam\0" + struct.pack("<II", 2, 2)
    image += struct.pack("<I", 5) + b"rgb8\0" + b"\0" + bytes(2) + struct.pack("<II", 6, 12) + bytes(12)
    put("cdr", "image", image)


if __name__ == "__main__":
    main()
