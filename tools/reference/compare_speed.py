#!/usr/bin/env python3
"""Gemmule beside its peers on the same machine, in turn: llama.cpp on the same Gemma 2 weights, PyTorch on the same tower.

usage: compare_speed.py [--threads N] [--generate 16] [--repeat 3] [--convert CHECKPOINT] [--against OLD_PROGRAM [--pairs 10]]
                        NAME=TEXT.gguf,MMPROJ.gguf ...
needs: target/release/gemmule, and in this Python llama-cpp-python, torch and transformers (what is missing is left out)

The pairs are those of `gemmule-synth --split` or `gemmule-quantize --split`. Prints a Markdown table of medians. Each peer runs
in a process of its own; where llama.cpp crashes (its AMX code does on some machines) it runs again without its extra buffer
types, and the table says so.

--against OLD_PROGRAM compares with another build of `gemmule` in its place: --pairs times one after the other, which of them first by turns.
It prints the median of the ratios (above 1: this build is faster) with the interval that holds the median in 95 of 100 such series.

--convert times the conversion to Q4_0 of a safetensors checkpoint (`gemmule-synth --safetensors`), beside llama.cpp's
quantizer on the same language model in bfloat16. It knows no vision tower, so weights a second are compared.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


OURS = REPOSITORY / "target" / "release" / "gemmule"


def gemmule(text, mmproj, options, program=OURS):
    command = [program, "bench", "-m", text, "--mmproj", mmproj, "--json",
               "-n", options.generate + 1, "--repeat", options.repeat, "-t", options.threads]
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def quiet_llama():
    import llama_cpp as llama
    silent = llama.llama_log_callback(lambda level, text, user: None)
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    llama.llama_backend_init()
    return llama, silent


def llama_cpp(options, path, prompt_tokens, extra_buffers):
    """Tokens per second of a prompt and of generation."""
    llama, _silent = quiet_llama()
    prompt_tokens = int(prompt_tokens)
    model_parameters = llama.llama_model_default_params()
    model_parameters.use_extra_bufts = extra_buffers == "extra"
    model = llama.llama_model_load_from_file(path.encode(), model_parameters)
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


def llama_quantize(options, source, target):
    """Seconds that llama.cpp takes to requantize a GGUF file to Q4_0."""
    llama, _silent = quiet_llama()
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype = llama.LLAMA_FTYPE_MOSTLY_Q4_0
    parameters.nthread = options.threads
    start = time.perf_counter()
    status = llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters))
    if status != 0:
        raise SystemExit(f"llama_model_quantize: {status}")
    return time.perf_counter() - start


def torch_tower(options, image_size=224):
    """Milliseconds of SigLIP So400m/14 in float32."""
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel
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


PEERS = {peer.__name__: peer for peer in (llama_cpp, llama_quantize, torch_tower)}


def run_peer(options, peer, *arguments):
    """What a peer measures in a process of its own: its result, or None where it is not installed or has crashed."""
    command = [sys.executable, __file__, "--threads", options.threads, "--generate", options.generate, "--repeat", options.repeat,
               "--peer", peer.__name__, *arguments]
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if run.returncode != 0:
        reason = run.stderr.strip().splitlines()[-1:] or [f"exit status {run.returncode}"]
        print(f"{peer.__name__} {' '.join(map(str, arguments))}: {reason[0]}", file=sys.stderr)
        return None
    return json.loads(run.stdout.splitlines()[-1])


def row(what, ours, peer, larger_is_better):
    """A line of the table."""
    ratio = "" if not peer else f"{ours / peer if larger_is_better else peer / ours:.2f}"
    return f"| {what} | {ours:.1f} | {f'{peer:.1f}' if peer else '-'} | {ratio} |"


def compare_conversion(options, checkpoint):
    """Rows of the table: weights a second and greatest memory of a conversion to Q4_0, and the peer's weights a second."""
    with tempfile.TemporaryDirectory(dir=Path(checkpoint).parent) as directory:
        def convert(kind):
            out = Path(directory) / f"{kind}.gguf"
            # What the other has written is not this one's to wait for.
            os.sync()
            command = [REPOSITORY / "target" / "release" / "gemmule-quantize", checkpoint, out, "--type", kind, "--split",
                       "--threads", options.threads]
            start = time.perf_counter()
            process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            if status != 0:
                raise SystemExit(f"gemmule-quantize: status {status}")
            return out, time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6

        def convert_once():
            out, seconds, most = convert("q4_0")
            for part in (out, out.with_name("q4_0-mmproj.gguf")):
                part.unlink()
            return seconds, most

        source, _, _ = convert("bf16")
        # A file in bfloat16 has two bytes for each weight; its metadata and the norms in float32 are a hundredth of it at most.
        text = source.stat().st_size / 2e6
        all_weights = text + source.with_name("bf16-mmproj.gguf").stat().st_size / 2e6
        ours, memory, peer = [], [], []
        for _ in range(options.repeat):
            target = Path(directory) / "peer.gguf"
            # Each after an unmeasured one of ours: a virtual machine may first have to find memory for the page cache.
            convert_once()
            os.sync()
            peer.append(run_peer(options, llama_quantize, source, target))
            target.unlink(missing_ok=True)
            convert_once()
            seconds, most = convert_once()
            ours.append(seconds)
            memory.append(most)
        peer = [seconds for seconds in peer if seconds]
        print(f"conversions, s: {ours}, llama.cpp's: {peer}", file=sys.stderr)
        return [row("conversion of bf16 to Q4_0, million weights/s (llama.cpp: without the tower)",
                    all_weights / statistics.median(ours), text / statistics.median(peer) if peer else None, True),
                f"| its greatest memory, MB | {max(memory):.0f} | - | |"]


def median_interval(values):
    """The order statistics that hold the median in at least 95 of 100 samples (a sign test)."""
    values, count = sorted(values), len(values)
    below, chance = 0, 0.5**count
    tail = chance
    while below + 1 < (count - 1) / 2:
        chance = chance * (count - below) / (below + 1)
        if tail + chance > 0.025:
            break
        tail, below = tail + chance, below + 1
    return values[below], values[count - 1 - below]


def compare_programs(options):
    """A line for each model and stage: how much faster this build is than the other."""
    print(f"{options.against} beside {OURS}, {options.threads} threads, {options.pairs} pairs\n")
    print("| what | before | now | median ratio | 95 % interval |\n|---|---|---|---|---|")
    for entry in options.models:
        name, files = entry.split("=", 1)
        text, mmproj = files.split(",")
        runs = {OURS: [], options.against: []}
        for pair in range(options.pairs):
            for program in sorted(runs, key=str, reverse=pair % 2 == 1):
                runs[program].append(gemmule(text, mmproj, options, program))
        stages = {
            "prompt, tokens/s": lambda run: run["prefill_tokens_per_second"],
            "generation, tokens/s": lambda run: run["generate_tokens_per_second"],
            "pictures, 1/s": lambda run: 1e3 / run["vision"]["median_ms"],
        }
        for stage, of in stages.items():
            old, new = [of(run) for run in runs[options.against]], [of(run) for run in runs[OURS]]
            ratios = [now / before for before, now in zip(old, new)]
            low, high = median_interval(ratios)
            print(f"| {name}: {stage} | {statistics.median(old):.2f} | {statistics.median(new):.2f} | {statistics.median(ratios):.3f} | "
                  f"{low:.3f} … {high:.3f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--generate", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--convert", metavar="CHECKPOINT")
    parser.add_argument("--against", metavar="OLD_PROGRAM")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("models", nargs="*", metavar="NAME=TEXT.gguf,MMPROJ.gguf")
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(PEERS[options.peer](options, *options.models)))
        return
    if options.against:
        compare_programs(options)
        return
    rows, ours = [], {"isa": "conversion"}

    # The tower is the same in every entry.
    tower = run_peer(options, torch_tower) if options.models else None
    for entry in options.models:
        name, files = entry.split("=", 1)
        text, mmproj = files.split(",")
        ours = gemmule(text, mmproj, options)
        peer, label = run_peer(options, llama_cpp, text, ours["prompt_tokens"], "extra"), "llama.cpp"
        if not peer:
            peer, label = run_peer(options, llama_cpp, text, ours["prompt_tokens"], "plain"), "llama.cpp without extra buffers"
        peer = peer or (None, None)
        prompt = f"{name}: prompt of {ours['prompt_tokens']}, tokens/s ({label})"
        rows.append(row(prompt, ours["prefill_tokens_per_second"], peer[0], True))
        rows.append(row(f"{name}: generation, tokens/s ({label})", ours["generate_tokens_per_second"], peer[1], True))
        rows.append(row(f"{name}: picture at 224, ms (PyTorch float32)", ours["vision"]["median_ms"], tower, False))
        read = ours["decoder_bytes"] * ours["generate_tokens_per_second"] / 1e9
        limit = ours["read_bytes_per_second"] / 1e9
        rows.append(f"| {name}: weights read in generation, GB/s (of what reading alone reaches) | {read:.1f} "
                    f"({read / limit:.0%} of {limit:.1f}) | - | |")
        rows.append(f"| {name}: load, ms / anonymous memory, MB | {ours['load']['median_ms']:.0f} / "
                    f"{(ours['anonymous_memory_bytes'] or 0) / 1e6:.0f} | - | |")
    if options.convert:
        rows.extend(compare_conversion(options, options.convert))
    print(f"{ours['isa']}, {options.threads} threads, medians of {options.repeat}\n")
    print("| what | gemmule | peer | times better |\n|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
