"""The bundled model: its sizes, and its forward pass for training, in which one look at a picture serves several prompts.

`answers` computes what `PaliGemmaForConditionalGeneration` computes in eager mode (`python model.py` compares the two), on the modules of
that class, so that a checkpoint is written by `save_pretrained`.
"""

import math
import sys
from pathlib import Path

import torch
from torch.nn import functional

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))
import bundled  # noqa: E402

IMAGE_SIZE, PATCH_SIZE = 112, 14
GRID = IMAGE_SIZE // PATCH_SIZE
BASE_VOCABULARY = 1024  # the tokenizer's own pieces; locations, segments and the picture's token follow
VOCABULARY = 2304  # embedding rows; those past the tokenizer's last id stay untrained, as in PaliGemma 2


VISION = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=5, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE)
TEXT = dict(vocab_size=VOCABULARY, intermediate_size=512, num_hidden_layers=5)


def configuration(image_token_id: int):
    return bundled.configuration(image_token_id, VISION, TEXT)


def pixel_values(pictures):
    """[N, SIDE, SIDE, 3] bytes of resized pictures as the tower takes them."""
    return pictures.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def look(model, pixels):
    """Features of the tower: [pictures, patches, width]."""
    return model.model.vision_tower(pixels).last_hidden_state


def normalize(x, norm):
    scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + norm.eps)
    return (x.float() * scale * (1.0 + norm.weight.float())).type_as(x)


def rotate(x, cosine, sine):
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


def answers(model, features, which, ids, prefix, kept):
    """Logits of the positions `kept` (indices into the flattened rows).

    features: [pictures, patches, width] of `look`; which: [rows], the picture of each; ids: [rows, length], the text after the image
    tokens, padded at its end; prefix: [rows], the prompt's length in it. Positions count from one. The prefix sees itself, the rest what is
    before it; padding lies behind all that is kept.
    """
    text, config = model.model.language_model, model.config.text_config
    soft = model.model.multi_modal_projector(features)[which]
    embedded = text.embed_tokens(ids)
    x = torch.cat((soft.to(embedded.dtype), embedded), dim=1)
    rows, length, width = x.shape
    image = soft.shape[1]
    at = torch.arange(length)
    seen = (at[None, :, None] >= at[None, None, :]) | (at[None, None, :] < (image + prefix)[:, None, None])
    hidden = torch.zeros(rows, 1, length, length).masked_fill_(~seen[:, None], -1e9)
    angle = (at[:, None] + 1) * (10000.0 ** (-torch.arange(0, config.head_dim, 2).float() / config.head_dim))
    cosine, sine = (torch.cat((f(angle), f(angle)), dim=-1)[None, None] for f in (torch.cos, torch.sin))
    heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    for layer in text.layers:
        attention = layer.self_attn
        y = normalize(x, layer.input_layernorm)
        q = attention.q_proj(y).view(rows, length, heads, size).transpose(1, 2)
        k = attention.k_proj(y).view(rows, length, groups, size).transpose(1, 2)
        v = attention.v_proj(y).view(rows, length, groups, size).transpose(1, 2)
        q, k = rotate(q, cosine, sine).to(y.dtype), rotate(k, cosine, sine).to(y.dtype)
        k, v = (t.repeat_interleave(heads // groups, dim=1) for t in (k, v))
        scores = (q @ k.transpose(2, 3)).float() * config.query_pre_attn_scalar**-0.5
        scores = torch.tanh(scores / 50.0) * 50.0 + hidden
        mixed = (scores.softmax(dim=-1).to(v.dtype) @ v).transpose(1, 2).reshape(rows, length, heads * size)
        x = x + normalize(attention.o_proj(mixed), layer.post_attention_layernorm)
        y = normalize(x, layer.pre_feedforward_layernorm)
        mlp = layer.mlp
        y = mlp.down_proj(functional.gelu(mlp.gate_proj(y), approximate="tanh") * mlp.up_proj(y))
        x = x + normalize(y, layer.post_feedforward_layernorm)
    x = normalize(x.reshape(rows * length, width)[kept], text.norm)
    logits = functional.linear(x, text.embed_tokens.weight.to(x.dtype)).float()
    return torch.tanh(logits / 30.0) * 30.0


@torch.no_grad()
def compare():
    from transformers import PaliGemmaForConditionalGeneration

    torch.manual_seed(1)
    model = PaliGemmaForConditionalGeneration(configuration(2200)).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and "language_model" in name:
            parameter.normal_(std=0.3)
    pixels = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    text = torch.randint(10, 1000, (3, 12))
    prefix, which, patches = torch.tensor([5, 7, 3]), torch.tensor([0, 1, 1]), GRID * GRID
    ids = torch.cat((torch.full((3, patches), 2200), text), dim=1)
    kinds = (torch.arange(patches + 12)[None] >= (patches + prefix)[:, None]).long()
    theirs = model(input_ids=ids, pixel_values=pixels[which], token_type_ids=kinds, attention_mask=torch.ones_like(ids), labels=ids).logits
    ours = answers(model, look(model, pixels), which, text, prefix, torch.arange(3 * (patches + 12))).view_as(theirs)
    print(f"largest difference of the logits: {(ours - theirs).abs().max():.2e} of {theirs.abs().max():.2f}")


if __name__ == "__main__":
    compare()
