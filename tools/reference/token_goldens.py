"""Goldens of added tokens: what `transformers` makes of the files beside `tokenizer.json` that name tokens.

    pip install torch transformers tokenizers pillow
    python tools/reference/token_goldens.py [--out tests/goldens/tokens.json]        (after goldens.py)

Each case changes files of `window-f32`: `files` has the keys that are set, by file (null: the file is not there; a key that is
null there is null in the file, `"(gone)"` removes it), and `own` the added tokens of `tokenizer.json` that are put, by their
content (null: not there). `vocabulary` has entries of its vocabulary that are put. `changed` are the added tokens of the
processor's tokenizer that `window-f32` has not or has otherwise, `gone` those that it has no more.
"""

import argparse
import copy
import json
import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import AutoProcessor

GOLDENS = Path(__file__).resolve().parents[2] / "tests" / "goldens"
CASE = GOLDENS / "window-f32"
FILES = ["config.json", "preprocessor_config.json", "special_tokens_map.json", "tokenizer_config.json"]
C, M, A = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
GONE = "(gone)"


def flags(content, **given):
    return {"content": content, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False, **given}


def token(content, **given):
    """As configurations of transformers 4 have it."""
    return {"__type": "AddedToken", **flags(content, **given)}


DECODER = {"0": flags("<pad>", special=True), "1": flags("<eos>", special=True), "2": flags("<bos>", special=True),
           "3": flags("<unk>", special=True)}
WITHOUT = {C: {"extra_special_tokens": GONE}, M: None}
CASES = [
    {},
    {M: None}, {C: None}, {C: None, M: None},
    *({C: {"tokenizer_class": name}} for name in ("GemmaTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend", GONE)),
    *({A: added} for added in ({"<x>": 1793}, {"<x>": 1800}, {"<x>": 1794, "<zzz>": 1793}, {"<x>": 5}, {"en": 426}, {"zz": 1793},
                               {"<pad>": 7}, {"<loc0001>": 1800})),
    *({A: added, C: {"tokenizer_class": "TokenizersBackend"}} for added in ({"<x>": 1794, "<zzz>": 1793}, {"zz": 1793})),
    *({M: {"zzz_token": value}} for value in ("<zzz>", flags("<zzz>", lstrip=True), "<x>", "en")),
    *({M: {"mask_token": value}} for value in ("<x>", flags("<x>", rstrip=True), None)),
    *({C: {"mask_token": value}} for value in ("<x>", token("<x>", rstrip=True), token("<x>", normalized=True), None)),
    *({C: {"image_token": value}} for value in ("<x>", "<image>", token("<image>", lstrip=True))),
    *({M: {"image_token": value}} for value in ("<new>", "<image>", flags("<image>", lstrip=True))),
    {C: {"image_token": "<x>", "extra_special_tokens": GONE}, M: {"additional_special_tokens": GONE}},
    {C: {"extra_special_tokens": GONE}, M: {"additional_special_tokens": GONE}},
    {C: {"extra_special_tokens": GONE, "tokenizer_class": "TokenizersBackend"}, M: {"additional_special_tokens": GONE}},
    *({C: {"extra_special_tokens": value}} for value in (
        ["<zzz>"], ["<zzz>", "<image>"], {"a": "<zzz>"}, {"foo_token": "<zzz>", "image_token": "<image>"}, {"bos_token": "<eos>"},
        {"z_token": token("<zzz>", rstrip=True), "a_token": "<x>"}, [token("<zzz>", lstrip=True)], [], None, ["en"],
        [token("<zzz>", special=False), "<x>"])),
    *({C: {"additional_special_tokens": value}} for value in (["<zzz>"], [])),
    *({C: {"additional_special_tokens": value, "extra_special_tokens": GONE}} for value in (["<zzz>"], [token("<zzz>")], {"q": "<x>"})),
    *({M: {"additional_special_tokens": value}} for value in (["<zzz>"], [])),
    *({C: {"extra_special_tokens": GONE}, M: {"additional_special_tokens": value}} for value in (["<zzz>"], ["<zzz>", "<image>", "<x>"])),
    *({M: {"extra_special_tokens": value}} for value in (["<zzz>"], ["<zzz>", "<image>"], {"a_token": "<zzz>"}, [flags("<zzz>", rstrip=True)])),
    *({C: {"added_tokens_decoder": value}} for value in (
        DECODER, DECODER | {"1793": {"content": "zz", "special": False}}, DECODER | {"1850": {"content": "zz"}},
        DECODER | {"426": {"content": "en", "lstrip": True, "rstrip": True}}, DECODER | {"426": flags("en", rstrip=True)},
        DECODER | {"9": flags("<zzz>", single_word=True), "10": flags("<x>", special=True), "100": flags("<y>")},
        DECODER | {"4": flags("<mask>", special=True)}, DECODER | {"7": flags("<loc0000>", lstrip=True, special=True)},
        DECODER | {"1792": flags("<image>", special=True, rstrip=True)}, {"426": {"content": "en"}}, {})),
    *({C: {"added_tokens_decoder": value, "tokenizer_class": "PreTrainedTokenizerFast"}} for value in (
        DECODER | {"426": {"content": "en", "lstrip": True}}, {"1850": {"content": "zz"}}, {})),
    {C: {"added_tokens_decoder": DECODER, "extra_special_tokens": ["<zzz>"]}, A: {"<x>": 1793}},
    {C: {"bos_token": token("<eos>")}, M: None}, {M: {"bos_token": "<eos>"}}, {M: {"bos_token": flags("<eos>")}},
    {C: {"bos_token": None}, M: None}, {C: {"pad_token": GONE, "unk_token": GONE}, M: None},
    {C: {"pad_token": "<zzz>", "eos_token": "<zzz>"}, M: None},
    {C: {"b_token": "<x>", "a_token": "<zzz>"}, M: {"d_token": "<y>", "c_token": "<w>"}},
    {C: {"b_token": "<x>", "a_token": "<zzz>", "extra_special_tokens": {"a_token": "<y>", "0_token": "<w>"}}},
    {C: {"sep_token": "<sep>", "cls_token": "<cls>", "foo_token": 5, "add_x_token": True}},
    {C: {"foo_token": flags("<zzz>")}},
    # The later of two wins; names take the place of a list.
    {C: {"sep_token": token("<mask>", lstrip=True, rstrip=True)}, M: None},
    {M: {"extra_special_tokens": {}}},
    {M: {"extra_special_tokens": {}, "additional_special_tokens": [token("<zzz>")]}},
    {C: {"extra_special_tokens": ["<X>", token("<X>", single_word=True)]}},
    {C: {"extra_special_tokens": [token("<X>", single_word=True), "<X>"]}},
    {C: {"added_tokens_decoder": {}, "img_x_token": token("<bos>", rstrip=True, normalized=True)}, M: None},
    {C: {"image_token": token("<mask>", rstrip=True)}},
]
OWN = [
    {"own": {"<image>": None}}, {"own": {"<bos>": None, "<loc0003>": None}},
    {"own": {"<seg005>": None}, "vocabulary": {"<zzz>": 1793}},
    {"own": {"<zzz>": dict(flags("<zzz>", rstrip=True), id=1793, special=False)}},
    {"own": {"<zzz>": dict(flags("<zzz>", rstrip=True), id=1793, special=False)}, C: {"added_tokens_decoder": DECODER}},
    {"own": {"<zzz>": dict(flags("<zzz>", rstrip=True), id=1793, special=False)},
     C: {"added_tokens_decoder": DECODER, "tokenizer_class": "PreTrainedTokenizerFast"}},
    {"own": {"<zzz>": dict(flags("<zzz>", single_word=True), id=1793, special=True)}, C: {"tokenizer_class": "TokenizersBackend"}},
    {"own": {"<zzz>": dict(flags("<zzz>"), id=1800, special=True)}},
    {"own": {"en": dict(flags("en", lstrip=True), id=426, special=False)}},
    {"own": {"en": dict(flags("en", lstrip=True, normalized=True), id=426, special=False)}, C: {"tokenizer_class": "TokenizersBackend"}},
    {"own": {"<loc0002>": dict(flags("<loc0002>", lstrip=True), id=-1, special=True)}},
]


def read(name):
    return json.loads((CASE / name).read_text())


def added(directory):
    tokenizer = AutoProcessor.from_pretrained(directory).tokenizer
    return json.loads(tokenizer.backend_tokenizer.to_str())["added_tokens"]


def write(directory, case):
    tokenizer = read("tokenizer.json")
    for content, entry in case.get("own", {}).items():
        before = next((one for one in tokenizer["added_tokens"] if one["content"] == content), None)
        if before:
            tokenizer["added_tokens"].remove(before)
        if entry:
            tokenizer["added_tokens"].append({**entry, "id": before["id"] if before else entry["id"]})
    tokenizer["model"]["vocab"].update(case.get("vocabulary", {}))
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    for name in {*FILES, *case["files"]}:
        entries = read(name) if (CASE / name).exists() else {}
        edits = case["files"].get(name, {})
        if edits is None:
            continue
        for key, value in edits.items():
            entries.pop(key, None)
            if value != GONE:
                entries[key] = value
        (directory / name).write_text(json.dumps(entries))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=GOLDENS / "tokens.json")
    options = arguments.parse_args()
    base, goldens = None, []
    for source in [*CASES, *OWN]:
        case = copy.deepcopy(source)
        case = {"files": {name: case.pop(name) for name in (C, M, A) if name in case}, **case}
        with tempfile.TemporaryDirectory() as directory:
            write(Path(directory), case)
            try:
                found = added(directory)
            except Exception as error:
                print(f"{case}: {type(error).__name__}: {str(error)[:100]}")
                continue
        if base is None:
            base = found
        case["changed"] = [one for one in found if one not in base]
        case["gone"] = [one["content"] for one in base if one["content"] not in {one["content"] for one in found}]
        goldens.append(case)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in goldens)
    options.out.write_text(f"[\n{lines}\n]\n")
    print(f"{len(goldens)} cases")


if __name__ == "__main__":
    main()
