"""Goldens of `generation_config.json`: the tokens that `generate` of transformers chooses greedily under its settings.

    pip install torch transformers tokenizers pillow
    python tools/reference/generation_goldens.py [--out tests/goldens/generation.json]        (after goldens.py)

Each case is a checkpoint, a picture and a prompt; `tests/goldens/first-f32` and `window-f32` are those of goldens.py, and
`models/easy-vqa` the bundled model. `configs` has, for each `generation_config.json`, the tokens and `smallest_gap`, which tells
how far they are from being others. Other kernels than those of AVX2, which this script asks for, gave the same tokens
and some gaps with another last digit.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
# Wider kernels, where a CPU has them, add in another order and move the last digit of some gaps.
os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PaliGemmaForConditionalGeneration
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

REPOSITORY = Path(__file__).resolve().parents[2]
PHOTO, SHAPE = "tests/goldens/pictures/photo.jpg", "examples/pictures/shape.png"
CASES = [
    ("tests/goldens/first-f32", PHOTO, "detect cat ; dog\n\n  two  spaces"),
    ("tests/goldens/window-f32", PHOTO, "answer en où est le café à Zürich? 日本語 😀🚀"),
    ("models/easy-vqa", SHAPE, "detect circle"),
    ("models/easy-vqa", SHAPE, "what color is the shape?"),
]
# tools/quantize/tests/generation.rs has it too.
MAX_NEW_TOKENS = 24
# Where two scores are nearer, rounding could decide between them.
CLOSE = 0.005
NOTE = (
    f"Greedy ids of transformers {transformers.__version__} in float32 (generate with max_new_tokens={MAX_NEW_TOKENS}, "
    "generation_config.json as given, rows from used_vocabulary on masked), pixels by the PIL backend, "
    "prompt ids <image>*n + <bos>prompt\\n. smallest_gap: least distance of the best processed score to the second over the steps "
    "(0: forced_eos_token_id with two tokens, the lower id wins)."
)


class Watch(LogitsProcessor):
    """Masks the rows that belong to no token, which Gemmule never chooses, and keeps the gap between the best and the second."""

    def __init__(self, used):
        self.used, self.gaps = used, []

    def __call__(self, ids, scores):
        scores = scores.clone()
        scores[:, self.used :] = -float("inf")
        best, second = scores[0].topk(2).values
        self.gaps.append(float(best - second))
        return scores


def each(key, *values):
    return [{key: value} for value in values]


def ending(end, **others):
    return {"eos_token_id": end, **others}


def settings(prompt, free):
    """What `generation_config.json` says beside the special tokens; `free` is the answer without any of it and without an end,
    so that the rules meet tokens that would be chosen."""
    first, second, third, fourth = free[:4]
    last, length = prompt[-1], len(prompt)
    return [
        {},
        *each("repetition_penalty", 1.05, 1.2, 1.5, 3.0, 0.8, 1.0),
        *each("encoder_repetition_penalty", 1.3, 0.7),
        {"encoder_repetition_penalty": 1.3, "repetition_penalty": 1.4},
        *each("no_repeat_ngram_size", 1, 2, 3, 4, 100),
        *each("encoder_no_repeat_ngram_size", 1, 2, 3),
        *each("suppress_tokens", [first], [first, 99999, -5], []),
        {"begin_suppress_tokens": [first]},
        {"begin_suppress_tokens": [first], "suppress_tokens": [free[-1]]},
        *each("bad_words_ids", [[first]], [[last, first]], [[first, second]], [[first, second, third], [1]],
              [[], [first, second], [7] * 200], [[last, first, second], [second, third]]),
        *each("sequence_bias", [[[first], -3.0]], [[[first], -1e4], [[409], 2.5]], [[[last, first], -20.0], [[445], 1.0]],
              [[[first, second], -10.0], [[second, third], -10.0], [[393], 40.0]], [[[first], -5.0], [[first], 0.5]]),
        ending(first), ending([1, second]), ending([1, fourth], min_new_tokens=3), ending(first, min_new_tokens=5),
        # The prompt counts in min_length, and min_new_tokens goes before it.
        *(ending(first, min_length=least) for least in (5, length, length + 1, length + 5)),
        ending(first, min_length=length + 5, min_new_tokens=2),
        ending([1, first, third], min_new_tokens=8), ending(None), ending([]), ending([first, -1, 99999]),
        *each("min_new_tokens", 10, 1000),
        {"forced_bos_token_id": 7},
        *each("forced_eos_token_id", 1, [9, 7]),
        {"forced_eos_token_id": 7, "min_new_tokens": 1000, "eos_token_id": [7]},
        {"exponential_decay_length_penalty": [2, 1.3]},
        {"exponential_decay_length_penalty": [0, 1.05], "eos_token_id": [1, 7]},
        {"exponential_decay_length_penalty": [4, 2.0], "min_new_tokens": 8},
        {"renormalize_logits": True, "repetition_penalty": 1.2},
        {"remove_invalid_values": True, "suppress_tokens": [first]},
        # Several at once: their order matters.
        {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "suppress_tokens": [first], "min_new_tokens": 12},
        {"sequence_bias": [[[first], -4.0]], "repetition_penalty": 1.3},
        {"sequence_bias": [[[393], 30.0]], "repetition_penalty": 2.0},
        {"bad_words_ids": [[first, first]], "no_repeat_ngram_size": 4, "repetition_penalty": 1.1, "encoder_repetition_penalty": 1.1},
        # These change nothing: the caller says how many tokens, and nothing is sampled or searched for with beams.
        {"max_new_tokens": 3}, {"max_length": 5},
        {"temperature": 5.0, "top_k": 3, "top_p": 0.1, "min_p": 0.5, "typical_p": 0.2, "epsilon_cutoff": 0.1, "eta_cutoff": 0.1},
        {"length_penalty": -3.0, "early_stopping": True},
        {"num_beam_groups": 2, "diversity_penalty": 3.0, "low_memory": True},
        {"pad_token_id": 5, "bos_token_id": 7, "decoder_start_token_id": 9},
        {"cache_implementation": "hybrid"},
        {"guidance_scale": 1.0},
    ]


def inputs(vision, tokenizer, picture, prompt):
    size, patches = vision.image_size, (vision.image_size // vision.patch_size) ** 2
    ids = torch.tensor([tokenizer.encode("<image>" * patches + f"<bos>{prompt}\n", add_special_tokens=False).ids])
    processor = SiglipImageProcessorPil(size={"height": size, "width": size})
    pixels = processor(images=[Image.open(picture).convert("RGB")], return_tensors="pt")["pixel_values"]
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=torch.zeros_like(ids), pixel_values=pixels)


def answer(model, given, used, config):
    """The tokens, and the smallest gap on the way to them."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "generation_config.json").write_text(json.dumps(config))
        model.generation_config = GenerationConfig.from_pretrained(directory)
    watch = Watch(used)
    ids = model.generate(**given, max_new_tokens=MAX_NEW_TOKENS, logits_processor=LogitsProcessorList([watch]))
    return ids[0, given["input_ids"].shape[1] :].tolist(), min(watch.gaps)


def make_case(checkpoint, picture, prompt):
    folder = REPOSITORY / checkpoint
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    used = tokenizer.get_vocab_size()
    given = inputs(model.config.vision_config, tokenizer, REPOSITORY / picture, prompt)
    ids = given["input_ids"][0].tolist()
    special = json.loads((folder / "generation_config.json").read_text())
    special = {key: special[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    free, _ = answer(model, given, used, special | {"eos_token_id": None})
    configs = []
    for changed in settings(ids, free):
        config = special | changed
        tokens, gap = answer(model, given, used, config)
        # Two forced tokens have the same score on every machine.
        if gap < CLOSE and not (gap == 0 and "forced_eos_token_id" in changed):
            print(f"{checkpoint}: left out, {gap} is too close: {changed}")
            continue
        # A forced token is infinitely far from the others, which JSON cannot say.
        gap = None if gap == float("inf") else round(gap, 4)
        configs.append({"generation_config": config, "tokens": tokens, "smallest_gap": gap})
    distinct = len({tuple(config["tokens"]) for config in configs})
    print(f"{checkpoint}, {prompt!r}: {len(configs)} configurations, {distinct} distinct answers", flush=True)
    return {"checkpoint": checkpoint, "picture": picture, "prompt": prompt, "prompt_tokens": len(ids),
            "max_new_tokens": MAX_NEW_TOKENS, "used_vocabulary": used, "configs": configs}


def written(cases):
    """JSON with a line for each configuration."""
    heads = [case | {"configs": []} for case in cases]
    text = json.dumps({"note": NOTE, "cases": heads}, indent=1, ensure_ascii=False)
    for case in cases:
        lines = ",\n".join("   " + json.dumps(config, allow_nan=False) for config in case["configs"])
        text = text.replace('"configs": []', f'"configs": [\n{lines}\n  ]', 1)
    return text + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "tests" / "goldens" / "generation.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = written([make_case(*case) for case in CASES])
    options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
