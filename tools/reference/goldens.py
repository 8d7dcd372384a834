#!/usr/bin/env python3
"""Make the goldens of tests/goldens: small random checkpoints and what transformers computes with them in float32.

usage: goldens.py [--out DIR]

Each case is a checkpoint in Hugging Face layout, pictures, and `golden.safetensors` with, per prompt, the stages
pixel_values, image_features, input_ids and logits_last, and the greedily generated tokens. Cases differ in layout,
sharding, dtype and every size that the implementation could get wrong. Pinned versions: requirements.txt.
"""

import argparse
import json
import random
import shutil
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file

import bundled

REPOSITORY = Path(__file__).resolve().parents[2]
WORDS = "answer en caption detect segment cat dog Zürich café naïve 日本 東京 😀 🚀 круг the a of in is what where".split()
# They share beginnings: tests/parity.rs has them too.
CHOICES = ["yes", "no", "yes it is", "yes it was a café"]
GREEDY_TOKENS = 8

# Sizes are small, and odd where a mistake would show. `text` and `vision` are Hugging Face's configuration keys.
CASES = {
    # The plain case: shards with an index, bfloat16, the layout of transformers 4.
    "sharded-bf16": dict(
        dtype=torch.bfloat16, layout="old", shards=3,
        text=dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                  num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=16),
        vision=dict(hidden_size=48, intermediate_size=100, num_hidden_layers=2, num_attention_heads=3, image_size=28, patch_size=14),
        pictures=[["gradient.png"]],
    ),
    # head_dim unlike query_pre_attn_scalar, no grouping, an MLP that is no multiple of 32, the layout of transformers 5.
    "odd-f16": dict(
        dtype=torch.float16, layout="new", shards=1,
        text=dict(hidden_size=96, intermediate_size=150, num_hidden_layers=2, num_attention_heads=3,
                  num_key_value_heads=3, head_dim=32, query_pre_attn_scalar=50),
        vision=dict(hidden_size=72, intermediate_size=90, num_hidden_layers=2, num_attention_heads=1, image_size=42, patch_size=14),
        pictures=[["photo.jpg"], ["alpha.png", "gray16.png", "rotated.jpg"]],
    ),
    # No caps, all query heads share one key head, everything float32 (and blocks of 256 for K-quants).
    "uncapped-f32": dict(
        dtype=torch.float32, layout="new", shards=2,
        text=dict(hidden_size=256, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1,
                  head_dim=8, query_pre_attn_scalar=8, attn_logit_softcapping=None, final_logit_softcapping=None),
        vision=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8),
        pictures=[["palette.gif"], ["tall.webp", "gray.bmp"]],
    ),
    # A window shorter than the prompt: the prefix sees all of itself, generated tokens see the window only.
    "window-f32": dict(
        dtype=torch.float32, layout="old", shards=1,
        text=dict(hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
                  head_dim=16, query_pre_attn_scalar=16, sliding_window=12),
        vision=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14),
        pictures=[["gradient.png", "photo.jpg"], ["photo.jpg"]],
    ),
    # PaliGemma 1: Gemma 1 has no norms behind its branches, no caps and no window; one key head, the released layout.
    "first-f32": dict(
        dtype=torch.float32, layout="old", shards=1, family="gemma",
        text=dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1, head_dim=32),
        vision=dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=3, image_size=42, patch_size=14),
        pictures=[["photo.jpg"], ["gradient.png", "tall.webp"]],
    ),
}
PROMPTS = ["caption en", "answer en où est le café à Zürich? 日本語 😀🚀", "", "detect cat ; dog\n\n  two  spaces"]


def make_pictures(folder: Path):
    """Pictures of the kinds that people have."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = numpy.random.default_rng(5)

    def smooth(height, width, channels):
        coarse = generator.integers(0, 256, (6, 8, channels), dtype=numpy.uint8)
        planes = [Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(channels)]
        return numpy.stack([numpy.asarray(plane) for plane in planes], axis=2)

    photo = Image.fromarray(smooth(90, 120, 3))
    photo.save(folder / "photo.jpg", quality=90)
    exif = photo.getexif()
    exif[0x0112] = 6
    Image.fromarray(smooth(40, 64, 3)).save(folder / "rotated.jpg", quality=92, exif=exif)
    y, x = numpy.mgrid[0:33, 0:57]
    Image.fromarray(numpy.stack([x * 4, y * 7, x * y % 256], axis=2).astype(numpy.uint8)).save(folder / "gradient.png")
    Image.fromarray(smooth(50, 31, 4)).save(folder / "alpha.png")
    Image.fromarray((smooth(24, 24, 1)[..., 0].astype(numpy.uint16) << 8) + 77).save(folder / "gray16.png")
    Image.fromarray(smooth(20, 30, 3)).quantize(17).save(folder / "palette.gif")
    Image.fromarray(smooth(77, 19, 3)).save(folder / "tall.webp", lossless=True)
    Image.fromarray(smooth(15, 16, 1)[..., 0]).save(folder / "gray.bmp")


def make_jpegs(folder: Path, photo):
    """JPEG in the variants that cameras and programs write, each beside PIL's own RGB of it."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = numpy.random.default_rng(8).integers(-40, 40, (61, 83, 3))
    busy = Image.fromarray(numpy.clip(numpy.asarray(photo.resize((83, 61))).astype(int) + noise, 0, 255).astype(numpy.uint8))
    for name, picture, options in [
        ("444", busy, {"subsampling": 0, "quality": 95}),
        ("422", busy, {"subsampling": 1, "quality": 80}),
        ("420", busy, {"subsampling": 2, "quality": 60}),
        ("coarse", busy, {"subsampling": 2, "quality": 5}),
        ("progressive", busy, {"progressive": True, "quality": 85}),
        ("restarts", busy, {"restart_marker_blocks": 3}),
        ("thin", busy.crop((0, 0, 1, 61)), {"quality": 90}),
        ("gray", busy.convert("L"), {"quality": 75}),
        ("cmyk", busy.convert("CMYK"), {"quality": 90}),
    ]:
        picture.save(folder / f"{name}.jpg", **options)
        Image.open(folder / f"{name}.jpg").convert("RGB").save(folder / f"{name}.png")


def load_picture(path: Path):
    """Upright RGB. PIL's own conversion clips 16-bit grey at 255, which turns it white; Gemmule keeps the upper byte."""
    picture = Image.open(path)
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((numpy.asarray(picture) >> 8).astype(numpy.uint8))
    return ImageOps.exif_transpose(picture).convert("RGB")


def make_tokenizer():
    generator = random.Random(3)
    texts = [" ".join(generator.choices(WORDS, k=6)) for _ in range(300)]
    return bundled.train_tokenizer(texts)


def rename(name: str, layout: str) -> str:
    """transformers' own parameter name in the layout of released checkpoints (old) or of transformers 5 (new)."""
    if layout == "new":
        return name
    name = name.removeprefix("model.")
    if name.startswith("language_model."):
        return name.replace("language_model.", "language_model.model.", 1)
    if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
        return name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return name


def write_checkpoint(model, case, folder: Path):
    state = {rename(k, case["layout"]): v.contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    names = sorted(state)
    if case["shards"] == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return
    files, index = case["shards"], {}
    for shard in range(files):
        file = f"model-{shard + 1:05d}-of-{files:05d}.safetensors"
        part = names[shard::files]
        save_file({n: state[n] for n in part}, folder / file, metadata={"format": "pt"})
        index.update({n: file for n in part})
    size = sum(v.numel() * v.element_size() for v in state.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": size}, "weight_map": index}, indent=1) + "\n")


def hugging_face_json(config, case):
    """config.json as released files have it: defaults left out, stale entries present."""
    defaults = dict(num_attention_heads=8, num_key_value_heads=4, head_dim=256, sliding_window=4096)
    text = {k: v for k, v in case["text"].items() if defaults.get(k, "none") != v}
    text |= {"model_type": case.get("family", "gemma2"), "vocab_size": config.text_config.vocab_size,
             "max_position_embeddings": 512, "num_image_tokens": 1}
    if text["model_type"] == "gemma2":
        text["hidden_activation"] = "gelu_pytorch_tanh"
    vision = {**case["vision"], "model_type": "siglip_vision_model", "vision_use_head": False, "hidden_act": "gelu_pytorch_tanh"}
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"], "model_type": "paligemma", "hidden_size": 2048,
        "ignore_index": -100, "image_token_index": config.image_token_id, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
        "num_hidden_layers": 26, "projection_dim": case["text"]["hidden_size"], "text_config": text, "vision_config": vision,
        "_vocab_size": 257152, "transformers_version": "4.47.0.dev0",
    }


def make_case(name, case, out: Path, tokenizer):
    from transformers import Gemma2Config, GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration, SiglipVisionConfig
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    size, patch = case["vision"]["image_size"], case["vision"]["patch_size"]
    bundled.write_tokenizer(tokenizer, folder, 512)
    bundled.write_preprocessor(folder, size, patch)
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 2, "eos_token_id": [1, 3], "pad_token_id": 0}) + "\n")
    kind = GemmaConfig if case.get("family") == "gemma" else Gemma2Config
    text = kind(vocab_size=bundled.VOCABULARY, max_position_embeddings=512, bos_token_id=2, eos_token_id=[1, 3],
                pad_token_id=0, **case["text"])
    vision = SiglipVisionConfig(**case["vision"], vision_use_head=False)
    image_token = tokenizer.token_to_id("<image>")
    config = PaliGemmaConfig(vision_config=vision.to_dict(), text_config=text.to_dict(), image_token_index=image_token,
                             projection_dim=case["text"]["hidden_size"])
    config._attn_implementation = "eager"
    torch.manual_seed(sum(map(ord, name)))
    model = PaliGemmaForConditionalGeneration(config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # Wide enough that caps bend, norms matter and no two stages could be mistaken for each other.
            spread = 0.3 if "norm" in key or "bias" in key else 1.6 / parameter[0].numel() ** 0.5
            spread = 1.0 if "embed" in key else spread
            parameter.add_(torch.randn_like(parameter) * spread) if "norm" in key else parameter.copy_(torch.randn_like(parameter) * spread)
    model.to(case["dtype"])
    write_checkpoint(model, case, folder)
    config_json = hugging_face_json(config, case)
    (folder / "config.json").write_text(json.dumps(config_json, indent=1) + "\n")
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    if kind is Gemma2Config:
        assert model.config.text_config.attn_logit_softcapping == case["text"].get("attn_logit_softcapping", 50.0)
    processor = SiglipImageProcessorPil(size={"height": size, "width": size})
    goldens, requests = {}, []
    for pictures in case["pictures"]:
        loaded = [load_picture(out / "pictures" / p) for p in pictures]
        pixels = processor(images=loaded, return_tensors="pt")["pixel_values"]
        for prompt in PROMPTS:
            ids = tokenizer.encode("<image>" * ((size // patch) ** 2 * len(pictures)) + f"<bos>{prompt}\n", add_special_tokens=False).ids
            stages = compute(model, pixels, torch.tensor([ids]), tokenizer)
            index = len(requests)
            requests.append({"pictures": pictures, "prompt": prompt})
            goldens |= {f"{index}.{key}": value.clone(memory_format=torch.contiguous_format) for key, value in stages.items()}
    save_file(goldens, folder / "golden.safetensors")
    (folder / "requests.json").write_text(json.dumps(requests, indent=1, ensure_ascii=False) + "\n")
    print(name, sum(f.stat().st_size for f in folder.iterdir()) // 1024, "KiB,", len(requests), "requests", flush=True)


@torch.no_grad()
def compute(model, pixels, ids, tokenizer):
    """The stages, and greedy tokens with the unused embedding rows masked (they are untrained in real checkpoints)."""
    used = tokenizer.get_vocab_size()
    features = model.get_image_features(pixels).pooler_output
    kinds = torch.zeros_like(ids)

    def prefill():
        return model(input_ids=ids, pixel_values=pixels, token_type_ids=kinds, attention_mask=torch.ones_like(ids),
                     use_cache=True, output_hidden_states=True)

    def step(state, token, position):
        return model(input_ids=torch.tensor([[token]]), past_key_values=state.past_key_values, use_cache=True,
                     attention_mask=torch.ones(1, position, dtype=torch.long), position_ids=torch.tensor([[position]]))

    state = prefill()
    stages = {"pixel_values": pixels, "image_features": features, "input_ids": ids[0], "logits_last": state.logits[0, -1],
              "last_hidden_state": state.hidden_states[-1][0]}
    tokens = []
    for _ in range(GREEDY_TOKENS):
        tokens.append(int(state.logits[0, -1, :used].argmax()))
        if tokens[-1] in (1, 3):
            break
        state = step(state, tokens[-1], ids.shape[1] + len(tokens))
    stages["tokens"] = torch.tensor(tokens)
    # The logarithm of the probability of each choice, end token included.
    scores = []
    for choice in CHOICES:
        state, score = prefill(), 0.0
        answer = tokenizer.encode(choice, add_special_tokens=False).ids + [1]
        for place, token in enumerate(answer, 1):
            score += float(state.logits[0, -1, :used].double().log_softmax(-1)[token])
            if place < len(answer):
                state = step(state, token, ids.shape[1] + place)
        scores.append(score)
    stages["choices"] = torch.tensor(scores)
    return stages


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "tests" / "goldens")
    options = parser.parse_args()
    make_pictures(options.out / "pictures")
    make_jpegs(options.out / "jpeg", Image.open(options.out / "pictures" / "photo.jpg"))
    tokenizer = make_tokenizer()
    for name, case in CASES.items():
        make_case(name, case, options.out, tokenizer)


if __name__ == "__main__":
    main()
