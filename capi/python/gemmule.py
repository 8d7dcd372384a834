"""PaliGemma on ordinary CPUs, through Gemmule's C library.

    import gemmule
    model = gemmule.Model("paligemma2.gguf")            # or Model() for the bundled one
    session = model.session()
    session.show(frame)                                 # a NumPy array [height, width, 3], or a path
    print(session.ask("caption en").text)

The library is found in GEMMULE_LIBRARY, beside this file, or where the system looks for libgemmule.so.0.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import operator
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

__all__ = ["Answer", "Cancelled", "Error", "Model", "Object", "Session", "version"]

FORMATS = {"rgb8": 0, "bgr8": 1, "rgba8": 2, "bgra8": 3, "mono8": 4}
FINISHES = ("end_token", "max_tokens", "stopped", "deadline")


class Error(RuntimeError):
    """What the library says went wrong."""


class Cancelled(Error):
    """`Session.cancel` ended the work before it had a result."""


class _SessionOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("threads", ctypes.c_uint32), ("isa", ctypes.c_char_p),
                ("generation_threads", ctypes.c_uint32), ("cancel", ctypes.c_void_p)]


class _GenerateOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("max_tokens", ctypes.c_uint32), ("temperature", ctypes.c_float),
                ("top_k", ctypes.c_uint32), ("top_p", ctypes.c_float), ("seed", ctypes.c_uint64),
                ("pattern", ctypes.c_char_p), ("objects_only", ctypes.c_bool), ("time_limit", ctypes.c_uint32)]


class _Image(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("width", ctypes.c_uint32),
                ("height", ctypes.c_uint32), ("row_step", ctypes.c_size_t), ("format", ctypes.c_uint32)]


class _Object(ctypes.Structure):
    _fields_ = [("label", ctypes.c_char_p), ("normalized_box", ctypes.c_float * 4), ("pixel_box", ctypes.c_float * 4),
                ("score", ctypes.c_float)]


class _Timings(ctypes.Structure):
    _fields_ = [("image", ctypes.c_double), ("vision", ctypes.c_double), ("prefill", ctypes.c_double),
                ("generate", ctypes.c_double), ("prompt_tokens", ctypes.c_size_t)]


_OnText = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.POINTER(ctypes.c_char), ctypes.c_size_t, ctypes.c_void_p)


def _load() -> ctypes.CDLL:
    beside = Path(__file__).with_name("libgemmule.so")
    library = ctypes.CDLL(os.environ.get("GEMMULE_LIBRARY") or (str(beside) if beside.exists() else "libgemmule.so.0"))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name, result, arguments in [
        ("version", ctypes.c_char_p, []),
        ("last_error", ctypes.c_char_p, []),
        ("model_open", ctypes.c_int, [ctypes.c_char_p, ctypes.c_char_p, pointer]),
        ("model_free", None, [pointer]),
        ("cancel_new", pointer, []),
        ("cancel_set", None, [pointer, ctypes.c_bool]),
        ("cancel_free", None, [pointer]),
        ("session_options_init_sized", None, [pointer, size]),
        ("session_new", ctypes.c_int, [pointer, pointer, pointer]),
        ("session_free", None, [pointer]),
        ("session_show", ctypes.c_int, [pointer, pointer, size]),
        ("session_show_files", ctypes.c_int, [pointer, pointer, size]),
        ("session_show_features", ctypes.c_int, [pointer, pointer, size]),
        ("session_features", ctypes.c_int, [pointer] * 5),
        ("generate_options_init_sized", None, [pointer, size]),
        ("session_ask", ctypes.c_int, [pointer, ctypes.c_char_p, pointer, _OnText, pointer, pointer]),
        ("session_mask", ctypes.c_int, [pointer, pointer, size, pointer, size]),
        ("session_score", ctypes.c_int, [pointer, ctypes.c_char_p, pointer, size, pointer]),
        ("answer_text", ctypes.c_char_p, [pointer]),
        ("answer_tokens", size, [pointer, pointer, pointer]),
        ("answer_objects", size, [pointer, pointer]),
        ("answer_segments", ctypes.POINTER(ctypes.c_uint16), [pointer, size]),
        ("answer_picture_size", None, [pointer, pointer, pointer]),
        ("answer_finish", ctypes.c_int, [pointer]),
        ("answer_timings", _Timings, [pointer]),
        ("answer_free", None, [pointer]),
    ]:
        function = getattr(library, f"gemmule_{name}")
        function.restype, function.argtypes = result, arguments
    return library


_library = _load()


def _check(status: int) -> None:
    if status:
        raise (Cancelled if status == 4 else Error)(_library.gemmule_last_error().decode())


def _text(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("a text must not hold a zero character")
    return text.encode()


def _path(path: str | os.PathLike[str]) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("a path must not hold a zero character")
    return encoded


def _number(name: str, value: int, bits: int = 32) -> int:
    """A whole number that C can hold; ctypes would wrap others around."""
    number = operator.index(value)
    if not 0 <= number < 1 << bits:
        raise ValueError(f"{name} is {number}, not from 0 to {(1 << bits) - 1}")
    return number


def _real(name: str, value: float) -> float:
    number = float(value)
    if not math.isfinite(number) or abs(number) > 3e38:
        raise ValueError(f"{name} is {number}, no number that can be used")
    return number


def version() -> str:
    """The library's version."""
    return _library.gemmule_version().decode()


@dataclass(frozen=True)
class Object:
    """An object that an answer names; boxes are x_min, y_min, x_max, y_max. `segments` are the sixteen codes of its mask, where the
    answer has one; `mask` is that in the picture, [height, width], where it was asked for."""

    label: str
    box: tuple[float, float, float, float]
    normalized_box: tuple[float, float, float, float]
    score: float
    segments: tuple[int, ...] = ()
    mask: np.ndarray | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Answer:
    """An answer; times are in milliseconds."""

    text: str
    tokens: np.ndarray
    probabilities: np.ndarray
    objects: list[Object]
    finish: str
    timings: dict[str, float]
    prompt_tokens: int


class _Owner:
    """What owns a handle of the library: it is freed once, in the process that made it, and never copied."""

    _handle: ctypes.c_void_p | None = None
    _process = 0

    def _take(self, handle: ctypes.c_void_p) -> None:
        self._handle, self._process = handle, os.getpid()

    def _give(self) -> ctypes.c_void_p:
        if self._handle is None:
            raise Error(f"the {type(self).__name__.lower()} is closed, or was never made")
        return self._handle

    def __reduce_ex__(self, protocol: object) -> object:
        raise TypeError(f"a {type(self).__name__} is neither copied nor pickled: make another one")


class Model(_Owner):
    """An opened model: a GGUF file, a pair, or the bundled one. Any number of threads may make sessions on it."""

    def __init__(self, path: str | os.PathLike[str] | None = None, mmproj: str | os.PathLike[str] | None = None) -> None:
        if self._handle is not None:
            raise Error("the model is open already")
        self._lock, handle = threading.Lock(), ctypes.c_void_p()
        paths = [None if path is None else _path(path) for path in (path, mmproj)]
        _check(_library.gemmule_model_open(*paths, ctypes.byref(handle)))
        self._take(handle)

    def session(self, threads: int = 0, isa: str | None = None, generation_threads: int = 0, *, check_same_thread: bool = True) -> Session:
        """A session; `threads` 0 means one for each physical core, `generation_threads` 0 as many as `threads`. See `Session` for
        `check_same_thread`."""
        return Session(self, threads, isa, generation_threads, check_same_thread=check_same_thread)

    def close(self) -> None:
        """Frees the model. Sessions on it go on."""
        if self._handle is None:
            return
        with self._lock:
            handle, self._handle = self._handle, None
            if handle is not None:
                _library.gemmule_model_free(handle)

    def __del__(self) -> None:
        self.close()


class Session(_Owner):
    """The memory of one generation at a time.

    As a connection of sqlite3, it belongs to the thread that made it, and refuses others: a picture that one thread shows must not be
    what another one's prompt is about. With `check_same_thread=False` any thread may use it, one after the other; who shows and asks
    from several threads holds it meanwhile:

        with session:
            session.show(frame)
            answer = session.ask("caption en")

    `cancel` and `resume` may come from any thread. `on_text` must not use the session that answers.
    """

    def __init__(
        self, model: Model, threads: int = 0, isa: str | None = None, generation_threads: int = 0, *, check_same_thread: bool = True
    ) -> None:
        if self._handle is not None:
            raise Error("the session is made already")
        self._thread = threading.get_ident() if check_same_thread else None
        # Held by who uses it, and by who sets or frees what cancels it.
        self._lock, self._cancel_lock = threading.RLock(), threading.Lock()
        self._busy, self._calls = False, None
        options, handle = _SessionOptions(), ctypes.c_void_p()
        _library.gemmule_session_options_init_sized(ctypes.byref(options), ctypes.sizeof(options))
        options.threads, options.generation_threads = _number("threads", threads), _number("generation_threads", generation_threads)
        options.isa = None if isa is None else _text(isa)
        with model._lock:
            owner = model._give()
            self._cancel = ctypes.c_void_p(_library.gemmule_cancel_new())
            options.cancel = self._cancel
            try:
                _check(_library.gemmule_session_new(owner, ctypes.byref(options), ctypes.byref(handle)))
            except BaseException:
                _library.gemmule_cancel_free(self._cancel)
                raise
        self._take(handle)

    def _check_thread(self) -> None:
        self._give()
        if self._calls == threading.get_ident():
            raise Error("the session is answering: on_text must not use it")
        if self._process != os.getpid():
            raise Error("the session was made before a fork: its threads are not in this process, so make another one here")
        if self._thread is not None and self._thread != threading.get_ident():
            raise Error("the session belongs to the thread that made it: make one in each thread, or with check_same_thread=False")

    @contextlib.contextmanager
    def _use(self) -> Iterator[ctypes.c_void_p]:
        """The handle, for one call at a time."""
        self._check_thread()
        with self._lock:
            handle = self._give()
            if self._busy:
                raise Error("the session is answering: it must not be used meanwhile")
            self._busy = True
            try:
                yield handle
            finally:
                self._busy = False

    def __enter__(self) -> Session:
        self._check_thread()
        self._lock.acquire()
        return self

    def __exit__(self, *_error: object) -> None:
        self._lock.release()

    def close(self) -> None:
        """Frees the session."""
        if self._handle is None:
            return
        if self._process != os.getpid():
            self._handle = None
            return
        if self._calls == threading.get_ident():
            raise Error("the session is answering: on_text must not close it")
        with self._lock, self._cancel_lock:
            if self._busy:
                raise Error("the session is answering: it must not be closed meanwhile")
            handle, self._handle = self._handle, None
            if handle is not None:
                _library.gemmule_session_free(handle)
                _library.gemmule_cancel_free(self._cancel)

    def __del__(self) -> None:
        self.close()

    def cancel(self) -> None:
        """Ends what the session computes, from any thread: `Cancelled` is raised, now and from then on; an answer that has begun
        ends with what there is."""
        self._set_cancel(True)

    def resume(self) -> None:
        """Takes `cancel` back."""
        self._set_cancel(False)

    def _set_cancel(self, value: bool) -> None:
        self._give()
        with self._cancel_lock:
            self._give()
            _library.gemmule_cancel_set(self._cancel, value)

    def show(self, *images: np.ndarray | str | os.PathLike[str], format: str | None = None) -> None:
        """Encodes the pictures that prompts are about: paths, or uint8 arrays [height, width] or [height, width, channels].
        `format` is one of rgb8, bgr8, rgba8, bgra8, mono8; by default the RGB one of the array's channels."""
        if images and not any(isinstance(image, np.ndarray) for image in images):
            paths = (ctypes.c_char_p * len(images))(*[_path(image) for image in images])
            with self._use() as handle:
                return _check(_library.gemmule_session_show_files(handle, paths, len(images)))
        kept, views = [], (_Image * len(images))()
        for view, image in zip(views, images):
            if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim not in (2, 3):
                raise ValueError("pictures must be uint8 arrays [height, width] or [height, width, channels], or all paths")
            channels = 1 if image.ndim == 2 else image.shape[2]
            name = format or {1: "mono8", 3: "rgb8", 4: "rgba8"}.get(channels, "")
            if FORMATS.get(name) is None or {"mono8": 1, "rgba8": 4, "bgra8": 4}.get(name, 3) != channels:
                raise ValueError(f"{channels} channels do not make {name or 'a picture'}")
            # A copy of our own: whoever has the array may change it while it is read.
            pixels = np.array(image, order="C", copy=True)
            kept.append(pixels)
            height, width = (_number(side, length) for side, length in zip(("height", "width"), pixels.shape))
            view.data, view.size, view.width, view.height = pixels.ctypes.data, pixels.size, width, height
            view.row_step, view.format = width * channels, FORMATS[name]
        with self._use() as handle:
            _check(_library.gemmule_session_show(handle, views, len(images)))

    def show_features(self, features: np.ndarray) -> None:
        """Takes features [images, tokens, hidden] in the place of pictures."""
        features = np.array(features, np.float32, order="C", copy=True)
        with self._use() as handle:
            _check(_library.gemmule_session_show_features(handle, features.ctypes.data, features.size))

    def features(self) -> np.ndarray:
        """The features of the pictures shown, [images, tokens, hidden]."""
        data, sizes = ctypes.POINTER(ctypes.c_float)(), [ctypes.c_size_t() for _ in range(3)]
        with self._use() as handle:
            _check(_library.gemmule_session_features(handle, ctypes.byref(data), *map(ctypes.byref, sizes)))
            shape = tuple(size.value for size in sizes)
            return np.ctypeslib.as_array(data, shape).copy() if all(shape) else np.zeros(shape, np.float32)

    def ask(
        self,
        prompt: str,
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        pattern: str | None = None,
        objects_only: bool = False,
        time_limit: int = 0,
        masks: bool = False,
        on_text: Callable[[str], bool | None] | None = None,
    ) -> Answer:
        """The answer to a prompt about the pictures shown. `on_text` takes each piece as soon as it is certain; if it returns
        False the answer ends; with a `time_limit` in milliseconds it ends with what there is by then. An exception in it ends the answer and is raised here.
        With `masks` the masks in the answer are decoded, which the model has to hold a decoder for."""
        options, raised = _GenerateOptions(), []
        _library.gemmule_generate_options_init_sized(ctypes.byref(options), ctypes.sizeof(options))
        options.max_tokens, options.top_k = _number("max_tokens", max_tokens), _number("top_k", top_k)
        options.temperature, options.top_p = _real("temperature", temperature), _real("top_p", top_p)
        options.seed, options.time_limit = _number("seed", seed, 64), _number("time_limit", time_limit)
        options.objects_only = bool(objects_only)
        options.pattern = None if pattern is None else _text(pattern)
        text = _text(prompt)

        def hand_over(text: ctypes._Pointer[ctypes.c_char], length: int, _user: object) -> bool:
            self._calls = threading.get_ident()
            try:
                return on_text(ctypes.string_at(text, length).decode()) is not False
            except BaseException as error:
                raised.append(error)
                return False
            finally:
                self._calls = None

        answer = ctypes.c_void_p()
        callback = _OnText(hand_over) if on_text else _OnText(0)
        with self._use() as handle:
            status = _library.gemmule_session_ask(handle, text, ctypes.byref(options), callback, None, ctypes.byref(answer))
            try:
                if raised:
                    raise raised[0]
                _check(status)
                return self._read_answer(handle, answer, masks)
            finally:
                _library.gemmule_answer_free(answer)

    def _read_answer(self, session: ctypes.c_void_p, answer: ctypes.c_void_p, masks: bool) -> Answer:
        tokens, probabilities = ctypes.POINTER(ctypes.c_uint32)(), ctypes.POINTER(ctypes.c_float)()
        count = _library.gemmule_answer_tokens(answer, ctypes.byref(tokens), ctypes.byref(probabilities))
        objects, found = ctypes.POINTER(_Object)(), []
        for index in range(_library.gemmule_answer_objects(answer, ctypes.byref(objects))):
            one, codes = objects[index], _library.gemmule_answer_segments(answer, index)
            segments = tuple(codes[:16]) if codes else ()
            mask = self._mask(session, answer, index) if masks and segments else None
            box = tuple(one.pixel_box), tuple(one.normalized_box)
            found.append(Object(one.label.decode(), *box, one.score, segments, mask))
        timings = _library.gemmule_answer_timings(answer)
        return Answer(
            text=_library.gemmule_answer_text(answer).decode(),
            tokens=np.array(tokens[:count], np.uint32),
            probabilities=np.array(probabilities[:count], np.float32),
            objects=found,
            finish=FINISHES[_library.gemmule_answer_finish(answer)],
            timings={name: getattr(timings, name) for name in ("image", "vision", "prefill", "generate")},
            prompt_tokens=timings.prompt_tokens,
        )

    def _mask(self, session: ctypes.c_void_p, answer: ctypes.c_void_p, index: int) -> np.ndarray:
        width, height = ctypes.c_uint32(), ctypes.c_uint32()
        _library.gemmule_answer_picture_size(answer, ctypes.byref(width), ctypes.byref(height))
        mask = np.zeros((height.value, width.value), np.bool_)
        _check(_library.gemmule_session_mask(session, answer, index, mask.ctypes.data, mask.size))
        return mask

    def score(self, prompt: str, choices: Sequence[str]) -> np.ndarray:
        """The probabilities of given answers among each other."""
        choices = [_text(choice) for choice in choices]
        texts = (ctypes.c_char_p * len(choices))(*choices)
        probabilities = np.zeros(len(choices), np.float32)
        text = _text(prompt)
        with self._use() as handle:
            _check(_library.gemmule_session_score(handle, text, texts, len(choices), probabilities.ctypes.data))
        return probabilities
