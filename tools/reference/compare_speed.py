#!/usr/bin/env python3
"""Gemmule beside its peers on the same machine, in turn: llama.cpp on the same Gemma 2 weights, PyTorch on the same tower.

usage: compare_speed.py [--threads N] [--generate 16] [--repeat 3] NAME=TEXT.gguf,MMPROJ.gguf ...
needs: target/release/gemmule, and in this Python llama-cpp-python, torch and transformers (what is missing is left out)

The pairs are those of `gemmule-synth --split` or `gemmule-quantize --split`. Prints a Markdown table of medians.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def gemmule(text, mmproj, options):
    command = [REPOSITORY / "target" / "release" / "gemmule", "bench", "-m", text, "--mmproj", mmproj, "--json",
               "-n", options.generate + 1, "--repeat", options.repeat, "-t", options.threads]
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def llama_cpp(path, prompt_tokens, options):
    """Tokens per second of a prompt and of generation."""
    try:
        import llama_cpp as llama
    except ImportError:
        return None
    quiet = llama.llama_log_callback(lambda level, text, user: None)
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    parameters = llama.llama_context_default_params()
    parameters.n_ctx = prompt_tokens + options.generate + 64
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.n_threads = parameters.n_threads_batch = options.threads
    context = llama.llama_init_from_model(model, parameters)
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))

    def decode(tokens):
        # The batch points into this array, which has to outlive the call.
        array = (llama.llama_token * len(tokens))(*tokens)
        status = llama.llama_decode(context, llama.llama_batch_get_one(array, len(tokens)))
        if status != 0:
            raise SystemExit(f"llama_decode: {status}")

    prompt, generate = [], []
    for repetition in range(options.repeat + 1):
        tokens = [3 + (i * 7919 + repetition) % (vocabulary - 3) for i in range(prompt_tokens)]
        start = time.perf_counter()
        decode(tokens)
        llama.llama_synchronize(context)
        prompt.append(prompt_tokens / (time.perf_counter() - start))
        start = time.perf_counter()
        for i in range(options.generate):
            decode([3 + i * 104729 % (vocabulary - 3)])
        llama.llama_synchronize(context)
        generate.append(options.generate / (time.perf_counter() - start))
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
    llama.llama_free(context)
    llama.llama_model_free(model)
    return statistics.median(prompt[1:]), statistics.median(generate[1:])


def torch_tower(options, image_size=224):
    """Milliseconds of SigLIP So400m/14 in float32."""
    try:
        import torch
        from transformers import SiglipVisionConfig, SiglipVisionModel
    except ImportError:
        return None
    torch.set_num_threads(options.threads)
    config = SiglipVisionConfig(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16,
                                image_size=image_size, patch_size=14, vision_use_head=False)
    model = SiglipVisionModel(config).eval()
    pixels = torch.randn(1, 3, image_size, image_size)
    samples = []
    with torch.inference_mode():
        for _ in range(options.repeat + 1):
            start = time.perf_counter()
            model(pixel_values=pixels)
            samples.append((time.perf_counter() - start) * 1e3)
    return statistics.median(samples[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--generate", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("models", nargs="+", metavar="NAME=TEXT.gguf,MMPROJ.gguf")
    options = parser.parse_args()
    rows = []

    def row(what, ours, peer, larger_is_better):
        ratio = "" if not peer else f"{ours / peer if larger_is_better else peer / ours:.2f}"
        rows.append(f"| {what} | {ours:.1f} | {f'{peer:.1f}' if peer else '-'} | {ratio} |")

    for entry in options.models:
        name, files = entry.split("=", 1)
        text, mmproj = files.split(",")
        ours = gemmule(text, mmproj, options)
        peer = llama_cpp(text, ours["prompt_tokens"], options) or (None, None)
        row(f"{name}: prompt of {ours['prompt_tokens']}, tokens/s (llama.cpp)", ours["prefill_tokens_per_second"], peer[0], True)
        row(f"{name}: generation, tokens/s (llama.cpp)", ours["generate_tokens_per_second"], peer[1], True)
        row(f"{name}: picture at 224, ms (PyTorch float32)", ours["vision"]["median_ms"], torch_tower(options), False)
        read = os.path.getsize(text) * ours["generate_tokens_per_second"] / 1e9
        rows.append(f"| {name}: weights read in generation, GB/s | {read:.1f} | - | |")
        rows.append(f"| {name}: load, ms / anonymous memory, MB | {ours['load']['median_ms']:.0f} / "
                    f"{(ours['anonymous_memory_bytes'] or 0) / 1e6:.0f} | - | |")
    print(f"{ours['isa']}, {options.threads} threads, medians of {options.repeat}\n")
    print("| what | gemmule | peer | times better |\n|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
