"""Goldens of `gemmule eval`'s measures from the programs that define them.

    pip install pycocoevalcap pycocotools anls          (pycocoevalcap's tokenizer needs Java)
    pip download --no-deps salesforce-lavis             (its copy of the official VQA script; unzip the wheel)
    python tools/reference/metric_goldens.py LAVIS tests/goldens/metrics.json
"""

import importlib.util
import json
import random
import sys
from pathlib import Path

import numpy as np
from anls import anls_score
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from pycocotools import mask as coco


def load_vqa(folder):
    path = Path(folder) / "lavis/common/vqa_tools/vqa_eval.py"
    spec = importlib.util.spec_from_file_location("vqa_eval", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.VQAEval(None, None) if module.VQAEval.__init__.__code__.co_argcount > 1 else module.VQAEval()


def vqa(evaluation, answer, references):
    """The accuracy of the official script (vqaEval.py), which normalizes where annotators differ."""
    normal = lambda text: evaluation.processDigitArticle(evaluation.processPunctuation(text))
    clean = lambda text: text.replace("\n", " ").replace("\t", " ").strip()
    answer, references = clean(answer), [clean(reference) for reference in references]
    if len(set(references)) > 1:
        answer, references = normal(answer), [normal(reference) for reference in references]
    scores = []
    for index in range(len(references)):
        others = references[:index] + references[index + 1 :]
        scores.append(min(1, sum(other == answer for other in others) / 3))
    return sum(scores) / len(scores)


def relaxed(answer, target):
    """ChartQA's rule as Pix2Struct evaluates it (metrics.py, relaxed_correctness)."""

    def to_float(text):
        try:
            return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
        except ValueError:
            return None

    a, b = to_float(answer), to_float(target)
    if a is not None and b:
        return float(abs(a - b) / abs(b) <= 0.05)
    return float(answer.lower() == target.lower())


def main():
    evaluation = load_vqa(sys.argv[1])
    words = ["yes", "Yes.", "no", "two", "2", "a dog", "the dog", "dogs?", "dont", "don't", "couldnt've", "couldn'tve", "1,000", "1.5", "none",
             "black/white", "black / white", "T-shirt", "t shirt", "it's 5 o'clock", "its 5 oclock", "U.S.A.", "somebody'd", "y'allll",
             "an apple, a pear", "(left)", "left", "what?! no", "3.", ".5", "'ows'at", "10:30", "a\tb", "  spaced  out ", "x_y", "ten"]
    words += [key for key in evaluation.contractions if key == key.lower()]
    generator = random.Random(3)
    cases = []
    for word in words:
        for _ in range(2):
            pool = [word, generator.choice(words), generator.choice(words), evaluation.processDigitArticle(word)]
            references = [generator.choice(pool) for _ in range(10)]
            cases.append({"answer": generator.choice(pool), "answers": references})
        cases.append({"answer": word, "answers": [word] * 10})
    for case in cases:
        case["score"] = vqa(evaluation, case["answer"], case["answers"])

    texts = ["", "invoice 42", "Invoice  42", "invoce 42", "café", "cafe", "12.5%", "12.5 %", "0.125", "0.13", "100", "104.9", "105.1", "-3", "-2.9", "1e2", "0", "0.0", "abc", "ABC", "日本語", "日本"]
    pairs = [(a, b) for a in texts for b in texts]
    close = [{"answer": a, "reference": b, "anls": anls_score(prediction=a, gold_labels=[b]), "relaxed": relaxed(a.strip(), b.strip())} for a, b in pairs if b]

    captions = [
        ("a man riding a wave on top of a surfboard", ["A man on a surfboard riding a wave.", "A surfer rides a wave in the ocean.", "Man surfing on a big wave!"]),
        ("two dogs play in the snow", ["Two dogs are playing in the snow.", "A couple of dogs, one black, run through snow"]),
        ("the cat's toy isn't red", ["The cat's toy is not red.", "The toy of the cat isn't red; it's blue."]),
        ("a well-known clock tower at 10:30", ["A well-known clock tower showing 10:30.", "Clock tower (very old) at half past ten"]),
        ("a yellow circle", ["A yellow circle", "a yellow circle at the top"]),
        ("", ["nothing at all", "Nothing"]),
        ("people can't see what we're doing, can they?", ["People can't see what they've done.", "they cannot see us - can they?"]),
        ("a train", ["A red & white train with the number 1,250 on it", "\"Express\" train number 5 leaves at 9.45"]),
        ("a man riding a wave on top of a surfboard", ["A dog in the snow", "Two circles"]),
    ]
    references = {index: [{"caption": text} for text in pair[1]] for index, pair in enumerate(captions)}
    answers = {index: [{"caption": pair[0]}] for index, pair in enumerate(captions)}
    tokenizer = PTBTokenizer()
    tokens = tokenizer.tokenize(references), tokenizer.tokenize(answers)
    _, scores = Cider().compute_score(*tokens)
    cider = [{"answer": pair[0], "answers": pair[1], "score": float(score)} for pair, score in zip(captions, scores)]

    drawn = np.random.default_rng(1)
    masks = []
    for width, height in [(1, 1), (7, 5), (33, 64), (200, 3), (640, 480)]:
        for _ in range(2):
            pair = []
            for share in drawn.random(2):
                pixels = np.kron(drawn.random((height // 4 + 1, width // 4 + 1)) < share, np.ones((4, 4)))[:height, :width]
                pair.append(coco.encode(np.asfortranarray(pixels.astype(np.uint8))))
            masks.append({"size": [height, width], "counts": [one["counts"].decode() for one in pair],
                          "areas": [int(coco.area(one)) for one in pair], "overlap": float(coco.iou(pair[:1], pair[1:], [0])[0, 0])})
    boxes = []
    for _ in range(40):
        pair = [sorted(drawn.random(2)) + sorted(drawn.random(2)) for _ in range(2)]
        (ax0, ax1, ay0, ay1), (bx0, bx1, by0, by1) = pair
        overlap = coco.iou([[ax0, ay0, ax1 - ax0, ay1 - ay0]], [[bx0, by0, bx1 - bx0, by1 - by0]], [0])
        boxes.append({"boxes": [[ax0, ay0, ax1, ay1], [bx0, by0, bx1, by1]], "overlap": float(overlap[0, 0])})
    out = {"vqa": cases, "close": close, "cider": cider, "masks": masks, "boxes": boxes}
    lines = lambda rows: ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    Path(sys.argv[2]).write_text("{" + ",\n".join(f'"{key}": [\n{lines(rows)}\n]' for key, rows in out.items()) + "}\n")


main()
