#!/usr/bin/env python3
"""Texts and the ids that llama.cpp gives them from a GGUF file's token table, for tools/quantize/tests/others.rs.

    pip install llama-cpp-python
    gemmule-quantize models/easy-vqa easy.gguf --type f16 --split
    python tools/reference/llama_tokenizer_cases.py easy.gguf tests/goldens/llama_tokenizer.jsonl
"""

import json
import sys
from pathlib import Path

from llama_cpp import Llama

model = Llama(sys.argv[1], vocab_only=True, verbose=False)
corpus = (Path(__file__).parent / "corpus.txt").read_text(encoding="utf-8").split("\n")
corpus += ["<bos>caption en\n", "<loc0012><loc1023> circle ; <loc0001>", "  two  spaces ", "ünïcödé 😀 日本語\t\x07"]
with open(sys.argv[2], "w", encoding="utf-8") as file:
    for text in corpus:
        ids = model.tokenize(text.encode(), add_bos=False, special=True)
        file.write(json.dumps({"text": text, "ids": ids}, ensure_ascii=False) + "\n")
