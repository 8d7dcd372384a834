"""Run by .ci/capi: the Python module on the bundled model."""

import copy
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

import gemmule

try:
    import hypothesis
    import hypothesis.strategies as st
except ImportError:
    hypothesis = None

PICTURE = Path(os.environ.get("GEMMULE_TEST_PICTURE") or Path(__file__).resolve().parents[2] / "examples" / "pictures" / "shape.png")


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
    streams(session, answer)
    frames(session, color, frame)
    assert "channels" in raises(ValueError, lambda: session.show(frame[..., :2]))
    assert "uint8" in raises(ValueError, lambda: session.show(frame.astype(float)))
    assert "nowhere" in raises(gemmule.Error, lambda: session.show("/nowhere.png"))
    assert "nowhere" in raises(gemmule.Error, lambda: gemmule.Model("/nowhere.gguf"))
    assert "mmx" in raises(gemmule.Error, lambda: gemmule.Model().session(isa="mmx"))
    misuse()
    shared()
    sequences()
    masks()
    print(f"Python {sys.version.split()[0]}, gemmule {gemmule.version()}: fine")


def streams(session, answer):
    """An answer piece by piece is the answer."""
    session.show(PICTURE)
    stream = session.stream("describe en")
    assert stream.answer is None and "stream" in raises(gemmule.Error, lambda: session.ask("caption en"))
    pieces = list(stream)
    assert len(pieces) > 2 and "".join(pieces) == answer.text == stream.answer.text
    assert (stream.answer.tokens == answer.tokens).all() and stream.answer.finish == "end_token"
    assert list(stream) == [] and session.ask("describe en").text == answer.text
    for piece in session.stream("describe en"):
        break
    # Nobody reads it any more.
    assert session.ask("describe en").text == answer.text
    with session.stream("describe en") as stream:
        next(stream)
    assert stream.answer.finish in ("stopped", "end_token") and session.ask("describe en").text == answer.text
    assert "max_tokens" in raises(ValueError, lambda: session.stream("describe en", max_tokens=-1))
    assert "pattern" in raises(gemmule.Error, lambda: list(session.stream("describe en", pattern="(")))
    with gemmule.Model() as model, model.session(threads=1) as other:
        other.show(PICTURE)
        left = other.stream("describe en")
        next(left)
    assert "closed" in raises(gemmule.Error, model.session) and "closed" in raises(gemmule.Error, other.features)
    assert list(left) == []
    with session.hold():
        session.show(PICTURE)
        assert "".join(session.stream("describe en")) == answer.text
        for piece in session.stream("describe en"):
            break
        held = session.stream("describe en")
    assert "".join(held) == answer.text
    # Two readers share the pieces, and both come to an end.
    shared, parts = session.stream("describe en"), [[], []]
    readers = [threading.Thread(target=part.extend, args=(shared,)) for part in parts]
    [reader.start() for reader in readers]
    [reader.join() for reader in readers]
    assert sorted(parts[0] + parts[1]) == sorted(pieces)
    with_error = session.stream("describe en", pattern="(")
    assert "pattern" in raises(gemmule.Error, with_error.close) and session.ask("describe en").text == answer.text
    # The end of a program whose stream is open.
    program = "import gemmule, sys; s = gemmule.Model().session(threads=1); s.show(sys.argv[1]); t = s.stream('x', pattern='(a|b){400}', max_tokens=5000)\n"
    for end, code in (("next(t)", 0), ("raise SystemExit(3)", 3), ("for p in t: 1 / 0", 1)):
        assert subprocess.run([sys.executable, "-c", program + end, str(PICTURE)], stderr=subprocess.DEVNULL).returncode == code, end


def frames(session, color, frame):
    """What cameras and PIL have."""
    # A blue square on white, in YUV of BT.601: the same pixels in each layout.
    yuv = np.array([[235, 128, 128], [41, 240, 110]], np.uint8)
    inside = (frame[..., 0] == 0).astype(int)
    y, u, v = np.moveaxis(yuv[inside], -1, 0)
    halves = [plane[::2, ::2] for plane in (u, v)]
    packed = np.stack([y[:, ::2], u[:, ::2], y[:, 1::2], v[:, ::2]], -1)
    size = {"width": 64, "height": 64}
    nv12 = np.concatenate([y.ravel(), np.stack(halves, -1).ravel()])
    i420 = np.concatenate([plane.ravel() for plane in (y, *halves)])
    of = lambda data, format, **more: gemmule.Frame(data, **size, format=format, **more)
    kinds = [of(nv12.tobytes(), "nv12"), of(memoryview(i420), "i420"), of(packed, "yuyv"), of(packed[..., [1, 0, 3, 2]].copy(), "uyvy"),
             of(np.pad(packed.reshape(64, 128), ((0, 0), (0, 32))).copy(), "yuyv", row_step=160), of(frame, "rgb8")]
    assert [color(kind) for kind in kinds] == ["blue"] * len(kinds)
    # Other weights give other colours.
    session.show(kinds[0])
    one = session.features()
    session.show(of(nv12, "nv12", matrix="bt2020", range="full"))
    assert (session.features() != one).any()
    session.show(kinds[0], kinds[2], frame)
    assert session.features().shape[0] == 3
    for what, name in [({"format": "nv21"}, "nv12"), ({"matrix": "bt2100"}, "bt709"), ({"range": "all"}, "limited"),
                       ({"width": -1}, "width"), ({"row_step": 2**64}, "row_step")]:
        wrong = {"data": nv12, **size, "format": "nv12", **what}
        assert name in raises(ValueError, lambda: session.show(gemmule.Frame(**wrong))), what
    assert raises(gemmule.Error, lambda: session.show(of(nv12[:-1], "nv12")))
    assert "bytes" in raises(ValueError, lambda: session.show(of(frame.astype(np.float32), "rgb8")))
    assert "bytes" in raises(ValueError, lambda: session.show(of(frame[:, ::2], "rgb8")))
    assert "format" in raises(ValueError, lambda: session.show(of(frame, "rgb8"), format="bgr8"))
    raises(TypeError, lambda: session.score("describe en", "red"))
    assert "all paths" in raises(ValueError, lambda: session.show(PICTURE, frame))
    assert "no picture" in raises(ValueError, lambda: session.show(3))
    assert "rgb8" in raises(ValueError, lambda: session.show(frame, format="nv12"))
    try:
        import PIL.Image
    except ImportError:
        return print("no PIL: its pictures were not shown")
    picture = PIL.Image.fromarray(frame)
    assert color(picture) == color(picture.convert("RGBA")) == color(picture.convert("P")) == "blue"
    session.show(PIL.Image.open(PICTURE))
    one = session.features()
    session.show(PICTURE)
    assert (session.features() == one).all()


def misuse():
    """What would have gone wrong without a word is refused."""
    model = gemmule.Model()
    session = model.session(threads=1)
    session.show(PICTURE)
    for name, value in [("max_tokens", 2**32 + 3), ("max_tokens", -1), ("top_k", 2**32), ("seed", -1), ("seed", 2**64), ("time_limit", 2**40),
                        ("temperature", float("nan")), ("top_p", 1e300)]:
        assert name in raises(ValueError, lambda: session.ask("describe en", **{name: value})), name
    raises(TypeError, lambda: session.ask("describe en", max_tokens=1.5))
    assert "threads" in raises(ValueError, lambda: model.session(threads=-1))
    assert "zero" in raises(ValueError, lambda: gemmule.Model("a\0b"))
    # The outer answer stays whole.
    inner = []
    answer = session.ask("describe en", on_text=lambda piece: inner.append(raises(gemmule.Error, lambda: session.ask("caption en"))))
    assert answer.text == "a yellow circle at the top" and all("answering" in text for text in inner) and inner
    for owner in (model, session):
        for copy_it in (copy.copy, copy.deepcopy, pickle.dumps):
            raises(TypeError, lambda: copy_it(owner))
        raises(gemmule.Error, owner.__init__ if owner is model else lambda: owner.__init__(model))
    # Made by one thread, and used by another.
    told = []
    thread = threading.Thread(target=lambda: told.append(raises(gemmule.Error, lambda: session.ask("describe en"))))
    thread.start()
    thread.join()
    assert "belongs to the thread" in told[0]
    # In a forked process.
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if "fork" in raises(gemmule.Error, lambda: session.ask("describe en")) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    session.close()
    session.close()
    session.__del__()
    for call in (lambda: session.ask("describe en"), session.cancel, session.features, session.__enter__, session.hold().__enter__):
        assert "closed" in raises(gemmule.Error, call)
    other = model.session(threads=1)
    model.close()
    other.show(PICTURE)
    assert other.ask("describe en").text == answer.text
    assert "closed" in raises(gemmule.Error, model.session)
    raises(gemmule.Error, lambda: gemmule.Session.__new__(gemmule.Session).features())


def shared():
    """Four threads at one session get the answers to their own pictures."""
    session, wrong = gemmule.Model().session(threads=1, check_same_thread=False), []
    colors = {"red": (255, 0, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "black": (0, 0, 0)}

    def answer(color):
        frame = np.full((64, 64, 3), 255, np.uint8)
        frame[20:44, 20:44] = colors[color]
        session.show(frame)
        return session.ask("answer en what color is the shape?").text

    def work(name):
        for _ in range(25):
            with session.hold():
                text = answer(name)
            if text != alone[name]:
                wrong.append((name, text))

    alone = {name: answer(name) for name in colors}
    assert len(set(alone.values())) > 2, alone
    threads = [threading.Thread(target=work, args=(name,)) for name in colors]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong, wrong


def sequences():
    """Calls in any order, from several threads, right and wrong ones: each does what it would do alone, or raises."""
    if hypothesis is None:
        return print("no hypothesis: sequences of calls were not run")
    model = gemmule.Model()
    frame = np.full((40, 40, 3), 255, np.uint8)
    frame[10:30, 10:30] = (0, 0, 255)
    alone = model.session(threads=1)
    expected = {}
    for name, picture in (("frame", frame), ("file", PICTURE)):
        alone.show(picture)
        expected[name] = alone.ask("describe en").text
    kinds = ["make", "close", "show frame", "show file", "show nothing", "show wrong", "ask", "ask limits", "ask inside", "cancel", "resume",
             "features", "score", "mask", "hold", "with", "stream", "stream dropped", "stream closed", "copy", "collect", "again"]

    @hypothesis.settings(max_examples=int(os.environ.get("GEMMULE_SEQUENCES", "60")), deadline=None)
    @hypothesis.given(st.lists(st.tuples(st.sampled_from(kinds), st.integers(0, 2), st.booleans()), max_size=25))
    def run(calls):
        sessions, shows, cancelled = [None] * 3, [None] * 3, [False] * 3

        def one(kind, at):
            session = sessions[at]
            if kind == "make":
                sessions[at], shows[at], cancelled[at] = model.session(threads=1, check_same_thread=at == 0), None, False
                return
            if kind == "collect":
                sessions[at] = None
                gc.collect()
                return
            if session is None:
                return
            if kind == "close":
                session.close()
            elif kind.startswith("show"):
                what = kind.split()[1]
                shows[at] = None
                session.show(*{"frame": [frame], "file": [PICTURE], "nothing": [], "wrong": ["/nowhere.png"]}[what])
                shows[at] = what
            elif kind == "ask":
                answer = session.ask("describe en")
                assert shows[at] not in expected or answer.text == expected[shows[at]], (answer, shows)
            elif kind == "ask limits":
                session.ask("describe en", max_tokens=-1)
            elif kind == "ask inside":
                pieces = []
                answer = session.ask("describe en", on_text=lambda piece: (pieces.append(piece), attempt("ask", at), attempt("close", at)) and None)
                assert answer.text == "".join(pieces) and (shows[at] not in expected or answer.text == expected[shows[at]])
            elif kind == "cancel":
                session.cancel()
            elif kind == "resume":
                session.resume()
            elif kind == "features":
                assert session.features().ndim == 3
            elif kind == "score":
                assert abs(session.score("answer en what color is the shape?", ["red", "blue"]).sum() - 1) < 1e-4
            elif kind == "mask":
                session.ask("segment circle", masks=True, max_tokens=3)
            elif kind == "hold":
                with session.hold():
                    attempt("ask", at)
            elif kind == "with":
                with session:
                    attempt("ask", at)
            elif kind == "stream":
                stream = session.stream("describe en")
                attempt("ask", at)
                text = "".join(stream)
                assert stream.answer.text == text and (shows[at] not in expected or text == expected[shows[at]])
            elif kind == "stream dropped":
                next(session.stream("describe en"), None)
            elif kind == "stream closed":
                with session.stream("describe en") as stream:
                    next(stream, None)
                assert next(stream, None) is None
            elif kind == "copy":
                copy.copy(session)
            elif kind == "again":
                session.__init__(model)

        def attempt(kind, at):
            try:
                one(kind, at)
            except (gemmule.Error, ValueError, TypeError):
                pass

        for kind, at, elsewhere in calls:
            if elsewhere:
                failed = []
                thread = threading.Thread(target=lambda: failed.extend(caught(attempt, kind, at)))
                thread.start()
                thread.join()
                assert not failed, failed
            else:
                attempt(kind, at)

    run()


def caught(call, *arguments):
    try:
        call(*arguments)
    except BaseException as error:
        return [error]
    return []


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
