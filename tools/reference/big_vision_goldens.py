"""A small golden checkpoint in big_vision's layout: JAX's names, layers stacked, dimensions in its order, one .npz.

    pip install torch numpy safetensors
    python tools/reference/big_vision_goldens.py        (after goldens.py)
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

GOLDENS = Path(__file__).resolve().parents[2] / "tests" / "goldens"
CASE = GOLDENS / "sharded-bf16"


def main():
    state = {}
    for shard in sorted(CASE.glob("model-*.safetensors")):
        state |= load_file(shard)
    config = json.loads((CASE / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    heads, kv_heads, hidden = text["num_attention_heads"], text.get("num_key_value_heads", 4), text["hidden_size"]
    vision_heads, width = vision["num_attention_heads"], vision["hidden_size"]

    def stack(pattern, turn):
        names = [pattern.format(layer) for layer in range(1000) if pattern.format(layer) in state]
        return torch.stack([turn(state[name]) for name in names])

    llm = lambda part, turn=lambda x: x: stack(f"language_model.model.layers.{{}}.{part}.weight", turn)
    img = lambda part, turn=lambda x: x: stack(f"vision_tower.vision_model.encoder.layers.{{}}.{part}", turn)
    # [heads · head_dim, hidden] to [heads, hidden, head_dim], as the einsum "BTD,NDH->BTNH" takes it.
    by_head = lambda count: lambda w: w.reshape(count, -1, hidden).transpose(1, 2)
    arrays = {
        "llm/embedder/input_embedding": state["language_model.model.embed_tokens.weight"],
        "llm/final_norm/scale": state["language_model.model.norm.weight"],
        "llm/layers/pre_attention_norm/scale": llm("input_layernorm"),
        "llm/layers/post_attention_norm/scale": llm("post_attention_layernorm"),
        "llm/layers/pre_ffw_norm/scale": llm("pre_feedforward_layernorm"),
        "llm/layers/post_ffw_norm/scale": llm("post_feedforward_layernorm"),
        "llm/layers/attn/q_einsum/w": llm("self_attn.q_proj", by_head(heads)),
        "llm/layers/attn/kv_einsum/w": torch.stack(
            [llm("self_attn.k_proj", by_head(kv_heads)), llm("self_attn.v_proj", by_head(kv_heads))], dim=1),
        # "BTNH,NHD->BTD"
        "llm/layers/attn/attn_vec_einsum/w": llm("self_attn.o_proj", lambda w: w.T.reshape(heads, -1, hidden)),
        "llm/layers/mlp/gating_einsum": torch.stack([llm("mlp.gate_proj", torch.t), llm("mlp.up_proj", torch.t)], dim=1),
        "llm/layers/mlp/linear": llm("mlp.down_proj", torch.t),
        "img/embedding/kernel": state["vision_tower.vision_model.embeddings.patch_embedding.weight"].permute(2, 3, 1, 0),
        "img/embedding/bias": state["vision_tower.vision_model.embeddings.patch_embedding.bias"],
        "img/pos_embedding": state["vision_tower.vision_model.embeddings.position_embedding.weight"][None],
        "img/Transformer/encoder_norm/scale": state["vision_tower.vision_model.post_layernorm.weight"],
        "img/Transformer/encoder_norm/bias": state["vision_tower.vision_model.post_layernorm.bias"],
        "img/head/kernel": state["multi_modal_projector.linear.weight"].T,
        "img/head/bias": state["multi_modal_projector.linear.bias"],
    }
    block = "img/Transformer/encoderblock"
    for index in range(2):
        arrays[f"{block}/LayerNorm_{index}/scale"] = img(f"layer_norm{index + 1}.weight")
        arrays[f"{block}/LayerNorm_{index}/bias"] = img(f"layer_norm{index + 1}.bias")
        arrays[f"{block}/MlpBlock_0/Dense_{index}/kernel"] = img(f"mlp.fc{index + 1}.weight", torch.t)
        arrays[f"{block}/MlpBlock_0/Dense_{index}/bias"] = img(f"mlp.fc{index + 1}.bias")
    attention = f"{block}/MultiHeadDotProductAttention_0"
    for name, part in [("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")]:
        # Inputs first, then head by head.
        arrays[f"{attention}/{name}/kernel"] = img(f"self_attn.{part}.weight", lambda w: w.T.reshape(width, vision_heads, -1))
        arrays[f"{attention}/{name}/bias"] = img(f"self_attn.{part}.bias", lambda b: b.reshape(vision_heads, -1))
    arrays[f"{attention}/out/kernel"] = img("self_attn.out_proj.weight", lambda w: w.T.reshape(vision_heads, -1, width))
    arrays[f"{attention}/out/bias"] = img("self_attn.out_proj.bias")

    # NumPy knows no bfloat16: JAX's arrays come out as two bytes without a type.
    plain = {f"params/{name}": array.contiguous().view(torch.int16).numpy().view("V2") for name, array in arrays.items()}
    out = GOLDENS / "big-vision"
    out.mkdir(exist_ok=True)
    np.savez(out / "checkpoint.npz", **plain)
    print({name: array.shape for name, array in plain.items()})


main()
