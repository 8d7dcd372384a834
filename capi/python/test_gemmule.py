"""Run by .ci/capi: the Python module on the bundled model."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

import gemmule

PICTURE = Path(__file__).resolve().parents[2] / "examples" / "pictures" / "shape.png"


def raises(kind, call):
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def main():
    session = gemmule.Model().session(threads=2, generation_threads=1)
    session.show(PICTURE)
    pieces = []
    answer = session.ask("describe en", on_text=pieces.append)
    assert answer.text == "a yellow circle at the top" == "".join(pieces), answer
    assert answer.finish == "end_token" and len(answer.tokens) == len(answer.probabilities) and answer.timings["vision"] > 0
    [circle] = session.ask("detect circle").objects
    assert circle.label == "circle" and 0 < circle.score <= 1 and circle.box[2] > circle.box[0]
    assert session.ask("describe en", on_text=lambda piece: False).finish == "stopped"
    assert session.ask("describe en", on_text=lambda piece: session.cancel()).finish == "stopped"
    assert "cancelled" in raises(gemmule.Cancelled, lambda: session.ask("describe en"))
    session.resume()
    timer = threading.Timer(0.05, session.cancel)
    timer.start()
    assert "cancelled" in raises(gemmule.Cancelled, lambda: [session.show(PICTURE) for _ in iter(int, 1)])
    session.resume()
    session.show(PICTURE)
    assert raises(ZeroDivisionError, lambda: session.ask("describe en", on_text=lambda piece: 1 / 0))
    assert session.ask("caption en", pattern="a red .+").text.startswith("a red ")
    probabilities = session.score("answer en what color is the shape?", ["red", "yellow"])
    assert probabilities[1] > 0.9 and abs(probabilities.sum() - 1) < 1e-5

    features = session.features()
    assert features.shape == (1, 25, 256) and features.dtype == np.float32
    session.show()
    assert session.features().shape[0] == 0
    session.show_features(features)
    assert session.ask("describe en").text == answer.text

    frame = np.full((64, 64, 3), 255, np.uint8)
    frame[20:44, 20:44] = (0, 0, 255)
    color = lambda image, **how: (session.show(image, **how), session.ask("answer en what color is the shape?").text)[1]
    wide = np.full((64, 100, 3), 7, np.uint8)
    wide[:, 10:74] = frame
    assert color(frame) == color(frame[..., ::-1], format="bgr8") == color(wide[:, 10:74]) == color(frame[::-1]) == "blue"
    assert color(np.dstack([frame, frame[..., :1]])) == "blue"
    assert "zero" in raises(ValueError, lambda: session.ask("describe en\0 and more"))
    assert "channels" in raises(ValueError, lambda: session.show(frame[..., :2]))
    assert "uint8" in raises(ValueError, lambda: session.show(frame.astype(float)))
    assert "nowhere" in raises(gemmule.Error, lambda: session.show("/nowhere.png"))
    assert "nowhere" in raises(gemmule.Error, lambda: gemmule.Model("/nowhere.gguf"))
    assert "mmx" in raises(gemmule.Error, lambda: gemmule.Model().session(isa="mmx"))
    masks()
    print(f"Python {sys.version.split()[0]}, gemmule {gemmule.version()}: fine")


def from_counts(mask):
    """The pixels of a mask in COCO's compressed run-length form."""
    runs, value, shift = [], 0, 0
    for part in (ord(letter) - 48 for letter in mask["counts"]):
        value, shift = value | (part & 31) << shift, shift + 5
        if part & 32:
            continue
        value -= (1 << shift) if part & 16 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return pixels.reshape(mask["size"][::-1]).T


def masks():
    """Masks are those of the command line; a model without their decoder says so."""
    path = os.environ["GEMMULE_MASKS_MODEL"]
    session = gemmule.Model(path).session()
    session.show(PICTURE)
    # The model was not trained on masks; so hot it writes one now and then.
    ask = lambda seed, masks: session.ask(
        "segment circle", objects_only=True, temperature=100, max_tokens=48, seed=seed, masks=masks)
    seed = next(seed for seed in range(50) if any(found.segments for found in ask(seed, False).objects))
    assert all(found.mask is None for found in ask(seed, False).objects)
    [found, *_] = [found for found in ask(seed, True).objects if found.segments]
    arguments = ["--objects-only", "--temperature", "100", "-n", "48", "--seed", str(seed), "--json"]
    program = [os.environ["GEMMULE_PROGRAM"], "run", "-m", path, "-i", PICTURE, "-p", "segment circle", *arguments]
    # Its exit code tells of an answer that is cut off.
    objects = json.loads(subprocess.run(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)["objects"]
    [expected, *_] = [one for one in objects if one.get("segments")]
    assert list(found.segments) == expected["segments"] and (found.mask == from_counts(expected["mask"])).all()
    session.show(PICTURE, PICTURE)
    several = lambda: [ask(seed, True) for seed in range(200)]
    assert "one picture" in raises(gemmule.Error, several)
    session = gemmule.Model().session()
    session.show(PICTURE)
    assert "--seg-vae" in raises(gemmule.Error, several)


main()
