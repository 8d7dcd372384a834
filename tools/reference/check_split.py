#!/usr/bin/env python3
"""Check a pair written by `gemmule-quantize --split` with others' readers: every tensor through the `gguf` package, and the
text half in llama.cpp, whose ranking of the next token must be gemmule's for a text-only prompt.

usage: check_split.py [--checkpoint DIR] [--prompt TEXT]
needs: cargo build --release --workspace; pip install llama-cpp-python (about 20 minutes)
"""

import argparse
import ctypes
import json
import subprocess
import tempfile
from pathlib import Path

import gguf
import llama_cpp
import numpy
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = REPOSITORY / "target" / "release"
TOP = 20


def check_tensors(checkpoint, paths):
    """Sorted values of every f32 tensor must be found in the checkpoint (norms: plus one)."""
    known = {}
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        for name in file.keys():
            values = file.get_tensor(name).to(torch.float32).numpy()
            norm = name.endswith("norm.weight") and "language_model" in name
            known[(values + 1 if norm else values).tobytes()] = name
    count = 0
    for path in paths:
        for tensor in gguf.GGUFReader(path).tensors:
            assert numpy.ascontiguousarray(tensor.data).tobytes() in known, f"{path}: {tensor.name} has other values"
            count += 1
    assert count == len(known), f"{count} tensors written, {len(known)} in the checkpoint"
    return count


def llama_logits(path, ids):
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    assert model, "llama.cpp does not load the text half"
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = 512, 512, 512
    context = llama_cpp.llama_init_from_model(model, parameters)
    # A PaliGemma prefix sees all of itself.
    llama_cpp.llama_set_causal_attn(context, False)
    tokens = (llama_cpp.llama_token * len(ids))(*ids)
    assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(ids))) == 0
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    return numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), shape=(size,)).copy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=REPOSITORY / "models" / "easy-vqa")
    parser.add_argument("--prompt", default="answer en what color is the shape?")
    options = parser.parse_args()

    @llama_cpp.llama_log_callback
    def quiet(level, text, user):
        pass

    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for kind in ("f32", "q8_0", "q4_0", "q4_k"):
            text, vision, trace = folder / f"{kind}.gguf", folder / f"{kind}-mmproj.gguf", folder / f"{kind}.safetensors"
            subprocess.run([PROGRAMS / "gemmule-quantize", options.checkpoint, text, "--type", kind, "--split"], check=True,
                           stdout=subprocess.DEVNULL)
            if kind == "f32":
                print(check_tensors(options.checkpoint, (text, vision)), "tensors read by gguf have the checkpoint's values")
            else:
                print(kind, sum(len(gguf.GGUFReader(path).tensors) for path in (text, vision)), "tensors read by gguf")
            subprocess.run([PROGRAMS / "gemmule", "trace", "-m", text, "--mmproj", vision, "-p", options.prompt, "-o", trace],
                           check=True)
            ours = load_file(trace)
            theirs = llama_logits(text, ours["input_ids"].tolist())
            error = numpy.linalg.norm(ours["logits_last"] - theirs) / numpy.linalg.norm(theirs)
            mine, other = (numpy.argsort(-logits)[:TOP].tolist() for logits in (ours["logits_last"], theirs))
            agree = next((rank for rank in range(TOP) if mine[rank] != other[rank]), TOP)
            print(f"{kind}: logits differ by {error:.1e} (relative); the first {agree} of {TOP} ranks are the same")
            assert mine[0] == other[0] and (kind != "f32" or agree == TOP)


if __name__ == "__main__":
    main()
