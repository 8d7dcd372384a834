"""More goldens of merged adapters: what `peft` makes of every kind of LoRA adapter that the converter takes.

    pip install torch transformers tokenizers pillow safetensors peft
    python tools/reference/lora_more_goldens.py [--out DIR]        (after goldens.py)

One directory per adapter. `golden.safetensors` has, per case, the logits of the model that
`PeftModel.from_pretrained(base, directory).merge_and_unload()` returns in float32, `<case>.image_features` where the tower or
the projector changes, and `<case>.trained`, the logits with the adapter beside the weights, where those are others: PEFT merges
what it adds to one of the tied embedding and head into both.
"""

import argparse
import json
import os
import shutil
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PaliGemmaForConditionalGeneration

GOLDENS = Path(__file__).resolve().parents[2] / "tests" / "goldens"
CASE = GOLDENS / "sharded-bf16"
WEIGHTS = "adapter_model.safetensors"
# In the file's order, which is no alphabetical one: the first that matches counts, and the matrices' ranks follow it.
RANKS = {r"layers\.[12]\.self_attn\.q_proj": 2, "q_proj": 3, "vision_tower.encoder.layers.0.self_attn.q_proj": 9,
         r"self_attn\.(k|v)_proj": 1, "model.language_model.layers.0.self_attn.k_proj": 9}
ALPHAS = {"vision_tower.encoder.layers.1.self_attn.q_proj": 7, "q_proj": 3, r".*language_model.*\.k_proj": 11,
          "k_proj": 2.5, "^model.language_model.layers.0.self_attn.v_proj": 1, "layers.0.self_attn.v_proj": 40}
LANGUAGE = r".*language_model.*\.(q_proj|down_proj)"
BASE = dict(r=2, lora_alpha=5)
ADAPTERS = {
    # Magnitudes of matrices and of a convolution; stored in bfloat16.
    "dora": dict(use_dora=True, target_modules=LANGUAGE + "|.*(fc1|patch_embedding|projector.linear)", store=torch.bfloat16),
    # A magnitude per dimension of the embedding: norms go over the vocabulary.
    "dora_embedding": dict(use_dora=True, target_modules=["embed_tokens", "v_proj"], store=torch.bfloat16),
    "embedding": dict(target_modules=["embed_tokens", "v_proj"], store=torch.bfloat16),
    # The names of transformers before 4.52.
    "rslora": dict(use_rslora=True, r=3, target_modules=["fc2", "k_proj", "q_proj"], old_names=True, store=torch.bfloat16),
    "patterns": dict(r=6, target_modules=["q_proj", "k_proj", "v_proj"], rank_pattern=RANKS, alpha_pattern=ALPHAS, store=torch.float16),
    # A regular expression for the modules, one module trained whole, and layers that are left out.
    "regex": dict(target_modules=r"model\.(vision_tower\..*\.1\..*(q_proj|fc2)|language_model\.layers\.[02]\.mlp\.(up|down)_proj)",
                  exclude_modules=r".*layers\.2.*up_proj", modules_to_save=["multi_modal_projector"], store=torch.float16),
    "layers": dict(target_modules=["q_proj", "fc1"], layers_to_transform=[1], layers_pattern="layers", fan_in_fan_out=True,
                   exclude_modules=["vision_tower.encoder.layers.1.mlp.fc1"]),
    "lora_bias": dict(lora_bias=True, target_modules=["fc1", "out_proj", "patch_embedding", "multi_modal_projector.linear"], store=torch.float16),
    "bias_lora_only": dict(bias="lora_only", target_modules=["q_proj", "fc1"], store=torch.bfloat16),
    "bias_all": dict(bias="all", target_modules=["fc2"], store=torch.bfloat16),
    # What else of the tied pair is trained whole must stay the same. The two large tensors are not kept, see `scaled`.
    "modules_to_save": dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], store=torch.bfloat16),
    "patch_embedding": dict(r=3, use_rslora=True, target_modules=["patch_embedding"], store=torch.float16),
    # Rows that take the place of others, in the order of the list; head and embedding stay tied.
    "tokens": dict(target_modules=["q_proj"], trainable_token_indices=[1792, 7, 1855, 2, 5], store=torch.float16),
    # What is added to one of the tied pair, or to each of them, is added to both.
    "head": dict(target_modules=["lm_head", "k_proj"], store=torch.float16),
    "dora_head": dict(use_dora=True, target_modules=["lm_head"], store=torch.float16),
    "head_and_embedding": dict(target_modules=["lm_head", "embed_tokens"], store=torch.float16),
    "dora_head_and_embedding": dict(use_dora=True, target_modules=["lm_head", "embed_tokens"], store=torch.float16),
}
# Several: merged one after the other, and at once, which differs where a DoRA adapter comes later (its norms are those of the
# weights that it is merged into, or of the checkpoint's).
SEVERAL = {"dora_then_rslora": ["dora", "rslora"], "rslora_then_dora": ["rslora", "dora"],
           "dora_twice": ["dora", "dora"]}
golden = load_file(CASE / "golden.safetensors")
ids, pixels = golden["0.input_ids"][None], golden["0.pixel_values"]


def load(path=CASE):
    return PaliGemmaForConditionalGeneration.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def logits(model):
    return model(input_ids=ids, pixel_values=pixels, token_type_ids=torch.zeros_like(ids), attention_mask=torch.ones_like(ids)).logits[0, -1].clone()


def scaled(weight):
    """The embedding that "modules_to_save" has for both: exact in bfloat16, and easily made again."""
    factors = torch.tensor([0.5, 1.0, 2.0])[torch.arange(len(weight)) % 3]
    return weight * factors[:, None]


def fill(model, config):
    for key, parameter in model.named_parameters():
        random = torch.randn_like(parameter)
        if "lora_magnitude" in key:
            parameter.mul_(1 + 0.3 * random.clamp(-2, 2))
        elif "lora_embedding" in key:
            parameter.copy_(0.3 * random)
        elif "lora_B" in key and key.endswith("bias"):
            parameter.copy_(0.2 * random)
        elif "lora_" in key:
            parameter.copy_(random * (0.4 / config.r**0.5 if "lora_B" in key else 1.6 / parameter[0].numel() ** 0.5))
        elif "modules_to_save" in key:
            parameter.copy_(scaled(parameter) if parameter.shape[0] == 1856 else parameter * 1.2)
        elif "trainable_tokens_delta" in key:
            parameter.copy_(random)
        elif config.bias != "none" and key.endswith("bias"):
            if config.bias == "all" or "base_layer" in key:
                parameter.add_(0.2 * random)


def old_name(key):
    key = key.replace(".model.vision_tower.", ".vision_tower.vision_model.")
    return key.replace(".model.language_model.", ".language_model.model.").replace(".model.multi_modal_projector", ".multi_modal_projector")


def write(directory, seed, *, store=torch.float32, old_names=False, **options):
    torch.manual_seed(seed)
    options = BASE | options
    model = get_peft_model(load(), LoraConfig(**options))
    fill(model, model.peft_config["default"])
    model.save_pretrained(directory, save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)
    tensors = {old_name(key) if old_names else key: value.to(store) for key, value in load_file(directory / WEIGHTS).items()}
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    path = directory / "adapter_config.json"
    # No path of this machine; target modules are a set and come in any order. PEFT sorts patterns when it saves.
    adapter = json.loads(path.read_text()) | {"base_model_name_or_path": None}
    for key in ("rank_pattern", "alpha_pattern"):
        adapter[key] = options.get(key, {})
    # PEFT takes it back for matrices that lie as usual, when it saves too.
    adapter["fan_in_fan_out"] = options.get("fan_in_fan_out", False)
    for key in ("target_modules", "exclude_modules"):
        if isinstance(adapter[key], list):
            adapter[key].sort()
    path.write_text(json.dumps(adapter, indent=1) + "\n")


def merge(model, directory):
    return PeftModel.from_pretrained(model, directory).merge_and_unload()


def difference(value, other):
    return float((value - other).norm() / other.norm())


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=GOLDENS / "lora-more")
    parser.add_argument("--full", type=Path, help="keep the adapters whose large tensors are left out here")
    arguments = parser.parse_args()
    out = arguments.out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    base, results = load(), {}
    plain = logits(base)
    assert difference(plain, golden["0.logits_last"]) < 1e-5
    plain_features = base.get_image_features(pixels).pooler_output
    base_state = {key: value.clone() for key, value in base.state_dict().items()}
    for number, (name, options) in enumerate(ADAPTERS.items()):
        write(out / name, 100 + number, **options)
        model = merge(load(), out / name)
        results[name] = logits(model)
        features = model.get_image_features(pixels).pooler_output
        if not torch.equal(features, plain_features):
            results[f"{name}.image_features"] = features.clone()
        tied = torch.equal(model.lm_head.weight, model.model.language_model.embed_tokens.weight)
        trained = logits(PeftModel.from_pretrained(load(), out / name))
        if (apart := difference(results[name], trained)) > 1e-5:
            results[f"{name}.trained"] = trained
        changed = sum(not torch.equal(value, base_state[key]) for key, value in model.state_dict().items())
        print(f"{name}: logits {difference(results[name], plain):.3f} from the checkpoint's, {changed} tensors changed, "
              f"{'tied' if tied else 'UNTIED'}, merged and beside differ by {apart:.1e}")
        assert tied, name
    # By name, for both of the tied pair: the same model.
    named = out / "named"
    shutil.copytree(out / "tokens", named)
    adapter = json.loads((named / "adapter_config.json").read_text())
    rows = adapter["trainable_token_indices"]
    for names in (["embed_tokens"], ["embed_tokens", "lm_head"], ["model.language_model.embed_tokens"]):
        (named / "adapter_config.json").write_text(json.dumps(adapter | {"trainable_token_indices": dict.fromkeys(names, rows)}))
        assert torch.equal(logits(merge(load(), named)), results["tokens"])
    shutil.rmtree(named)
    # As PEFT saves an adapter of the embedding unless it is told not to: with the embedding. It changes nothing.
    copy = out / "copy"
    shutil.copytree(out / "embedding", copy)
    tensors = load_file(copy / WEIGHTS)
    tensors["base_model.model.model.language_model.embed_tokens.base_layer.weight"] = base_state["lm_head.weight"].to(torch.bfloat16)
    save_file(tensors, copy / WEIGHTS, metadata={"format": "pt"})
    assert torch.equal(logits(merge(load(), copy)), results["embedding"])
    shutil.rmtree(copy)
    for name, adapters in SEVERAL.items():
        model = load()
        for adapter in adapters:
            model = merge(model, out / adapter)
        results[name] = logits(model)
        model = PeftModel.from_pretrained(load(), out / adapters[0], adapter_name="0")
        for number, adapter in enumerate(adapters[1:], 1):
            model.load_adapter(out / adapter, adapter_name=str(number))
        model.base_model.set_adapter([str(number) for number in range(len(adapters))])
        beside = logits(model)
        at_once = logits(model.merge_and_unload())
        assert difference(at_once, beside) < 1e-5
        if (apart := difference(results[name], at_once)) > 1e-5 and name == "dora_twice":
            results[f"{name}.at_once"] = at_once
        print(f"{name}: one after the other and at once differ by {apart:.1e}")
    # At half its strength, as PEFT scales (`scale_layer`): the magnitudes stay.
    for name in ("dora", "lora_bias"):
        model = PeftModel.from_pretrained(load(), out / name)
        for module in model.modules():
            if hasattr(module, "scale_layer"):
                module.scale_layer(0.5)
        results[f"{name}_half"] = logits(model.merge_and_unload())
    # An order of the patterns that is not the file's gives something else.
    adapter = json.loads((out / "patterns" / "adapter_config.json").read_text())
    wrong = out / "wrong"
    shutil.copytree(out / "patterns", wrong)
    (wrong / "adapter_config.json").write_text(json.dumps(adapter | {"alpha_pattern": dict(sorted(ALPHAS.items()))}))
    print("patterns sorted: differs by", difference(logits(merge(load(), wrong)), results["patterns"]))
    shutil.rmtree(wrong)
    # Beside the weights in the checkpoint's directory transformers adds it by itself (but drops DoRA's magnitudes).
    for name in ("rslora", "patterns", "lora_bias", "bias_all", "tokens", "dora"):
        both = out / "both"
        shutil.copytree(CASE, both)
        shutil.copytree(out / name, both, dirs_exist_ok=True)
        print(f"{name} in the checkpoint's directory: transformers is {difference(logits(load(both)), results[name]):.1e} from it")
        shutil.rmtree(both)
    if arguments.full:
        shutil.rmtree(arguments.full, ignore_errors=True)
        shutil.copytree(out / "modules_to_save", arguments.full / "modules_to_save")
    path = out / "modules_to_save" / WEIGHTS
    tensors = load_file(path)
    large = [key for key in tensors if "lora_" not in key]
    assert sorted(large) == ["base_model.model.lm_head.weight", "base_model.model.model.language_model.embed_tokens.weight"]
    assert all(torch.equal(tensors[key], scaled(base_state["lm_head.weight"])) for key in large)
    save_file({key: value for key, value in tensors.items() if key not in large}, path, metadata={"format": "pt"})
    save_file(results, out / "golden.safetensors")


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    main()
