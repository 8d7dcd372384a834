"""Goldens of merged adapters: logits of a small golden checkpoint with LoRA adapters, as `peft` computes them in float32.

    pip install torch transformers tokenizers pillow safetensors peft
    python tools/reference/lora_goldens.py        (after goldens.py)
"""

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PaliGemmaForConditionalGeneration

GOLDENS = Path(__file__).resolve().parents[2] / "tests" / "goldens"
CASE = GOLDENS / "sharded-bf16"
ADAPTERS = {
    "plain": LoraConfig(r=4, lora_alpha=12, target_modules=r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
                        modules_to_save=["multi_modal_projector"], bias="none"),
    "stabilized": LoraConfig(r=8, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "fc1", "fc2", "patch_embedding", "down_proj"],
                             rank_pattern={"vision_tower.encoder.layers.0.mlp.fc1": 2, "q_proj": 5}, alpha_pattern={"fc2": 9}),
}


def load():
    return PaliGemmaForConditionalGeneration.from_pretrained(CASE, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def main():
    out = GOLDENS / "lora"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for number, (name, config) in enumerate(ADAPTERS.items()):
        torch.manual_seed(number)
        model = get_peft_model(load(), config)
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                # So that B·A is about as large as the weights are.
                parameter.copy_(torch.randn_like(parameter) * (0.4 / config.r**0.5 if "lora_B" in key else 1.6 / parameter[0].numel() ** 0.5))
            elif "modules_to_save" in key:
                parameter.mul_(1.2)
        model.save_pretrained(out / name)
        (out / name / "README.md").unlink(missing_ok=True)
        path = out / name / "adapter_config.json"
        # No path of this machine; target modules are a set and come in any order.
        adapter = json.loads(path.read_text()) | {"base_model_name_or_path": None}
        if isinstance(adapter["target_modules"], list):
            adapter["target_modules"].sort()
        path.write_text(json.dumps(adapter, indent=1) + "\n")
    golden = load_file(CASE / "golden.safetensors")
    ids, pixels = golden["0.input_ids"][None], golden["0.pixel_values"]

    def logits(model):
        return model(input_ids=ids, pixel_values=pixels, token_type_ids=torch.zeros_like(ids), attention_mask=torch.ones_like(ids)).logits[0, -1].clone()

    results = {}
    for name in ADAPTERS:
        results[name] = logits(PeftModel.from_pretrained(load(), out / name))
    # The second adapter at half its strength beside the first.
    model = PeftModel.from_pretrained(load(), out / "plain", adapter_name="plain")
    model.load_adapter(out / "stabilized", adapter_name="stabilized")
    model.base_model.set_adapter(["plain", "stabilized"])
    for module in model.modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict) and "stabilized" in scaling:
            scaling["stabilized"] *= 0.5
    results["both"] = logits(model)
    plain = golden["0.logits_last"]
    for name, value in results.items():
        print(name, "differs from the checkpoint by", float((value - plain).norm() / plain.norm()))
    save_file(results, out / "golden.safetensors")


main()
