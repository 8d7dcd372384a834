"""The bundled model's shape: one place for its configuration, tokenizer and prompts."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

IMAGE_SIZE, PATCH_SIZE = 70, 14
BASE_VOCABULARY, LOCATIONS, SEGMENTS = 640, 1024, 128
VOCABULARY = 1856  # embedding rows; those past the tokenizer's last id stay untrained, as in PaliGemma 2
PAD, EOS, BOS, UNKNOWN = 0, 1, 2, 3


VISION = dict(hidden_size=128, intermediate_size=384, num_hidden_layers=4, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE)
TEXT = dict(vocab_size=VOCABULARY, intermediate_size=512, num_hidden_layers=4)


def configuration(image_token_id: int, vision=VISION, text=TEXT):
    """That of a model of these sizes, 256 wide and with four heads of 64."""
    from transformers import Gemma2Config, PaliGemmaConfig, SiglipVisionConfig

    vision = SiglipVisionConfig(num_attention_heads=4, projection_dim=256, vision_use_head=False, **vision)
    text = Gemma2Config(
        hidden_size=256, num_attention_heads=4, num_key_value_heads=2, head_dim=64, query_pre_attn_scalar=64,
        sliding_window=4096, max_position_embeddings=8192,
        pad_token_id=PAD, eos_token_id=EOS, bos_token_id=BOS, **text,
    )
    config = PaliGemmaConfig(
        vision_config=vision.to_dict(), text_config=text.to_dict(), image_token_index=image_token_id, projection_dim=256,
    )
    config._attn_implementation = "eager"
    return config


def train_tokenizer(texts, pieces=BASE_VOCABULARY) -> Tokenizer:
    """A Gemma-style BPE of so many pieces, beside locations and segments: spaces become U+2581, unknown characters fall back to bytes, no prefix space."""
    special = [AddedToken(t, special=True, normalized=False) for t in ("<pad>", "<eos>", "<bos>", "<unk>")]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    # Merges must not cross words; the finished tokenizer splits as Gemma's does, which leaves them in effect.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁[^▁]*|[^▁]+"), "isolated")
    bytes_ = [AddedToken(f"<0x{value:02X}>", special=True, normalized=False) for value in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=pieces - 1, special_tokens=special + bytes_, show_progress=False,
        initial_alphabet=[chr(c) for c in range(33, 127)] + ["▁"],
    )
    tokenizer.train_from_iterator(texts, trainer)
    content = json.loads(tokenizer.to_str())
    vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
    # A newline that the texts hold is part of trained pieces ("?\n"); alone it is the token behind them, as it is where
    # the texts hold none. Either way unused names keep the special rows where they belong.
    trained, newline, unused = "\n" in vocabulary, len(vocabulary), 0
    if trained:
        vocabulary["<unused0>"], unused = vocabulary["\n"], 1
    vocabulary["\n"] = newline
    for number in range(unused, unused + pieces - len(vocabulary)):
        vocabulary[f"<unused{number}>"] = len(vocabulary)
    added = ([] if trained else ["\n"]) + [name for name in vocabulary if name.startswith("<unused")]
    content["added_tokens"] = [
        {"id": vocabulary[token.content], "content": token.content, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False, "special": True} for token in special
    ] + [
        {"id": vocabulary[name], "content": name, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": False} for name in added
    ]
    extra = [f"<loc{n:04d}>" for n in range(LOCATIONS)] + [f"<seg{n:03d}>" for n in range(SEGMENTS)]
    for name in extra + ["<image>"]:
        content["added_tokens"].append(
            {"id": len(vocabulary), "content": name, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": name == "<image>"})
        vocabulary[name] = len(vocabulary)
    content["added_tokens"].sort(key=lambda token: token["id"])
    content["model"]["vocab"], content["model"]["merges"] = vocabulary, merges
    tokenizer = Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", BOS)])
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int = 8192):
    """tokenizer.json and its companions in the layout of a PaliGemma checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(
        json.dumps({**names, "additional_special_tokens": ["<image>"]}, indent=1) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "GemmaTokenizer", "processor_class": "PaliGemmaProcessor", "model_max_length": max_length,
         "add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False,
         "spaces_between_special_tokens": False, "extra_special_tokens": ["<image>"], **names}, indent=1) + "\n")


def write_preprocessor(folder: Path, image_size: int, patch_size: int):
    content = {
        "do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "SiglipImageProcessor",
        "image_seq_length": (image_size // patch_size) ** 2, "image_std": [0.5, 0.5, 0.5],
        "processor_class": "PaliGemmaProcessor", "resample": 3, "rescale_factor": 1 / 255,
        "size": {"height": image_size, "width": image_size},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(content, indent=1) + "\n")
