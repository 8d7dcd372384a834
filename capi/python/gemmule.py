"""PaliGemma on ordinary CPUs, through Gemmule's C library.

    import gemmule
    model = gemmule.Model("paligemma2.gguf")            # or Model() for the bundled one
    session = model.session()
    session.show(frame)                                 # a NumPy array [height, width, 3], or a path
    print(session.ask("caption en").text)

The library is found in GEMMULE_LIBRARY, beside this file, or where the system looks for libgemmule.so.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
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
                ("score", ctypes.c_float), ("segments", ctypes.POINTER(ctypes.c_uint16))]


class _Timings(ctypes.Structure):
    _fields_ = [("image", ctypes.c_double), ("vision", ctypes.c_double), ("prefill", ctypes.c_double),
                ("generate", ctypes.c_double), ("prompt_tokens", ctypes.c_size_t)]


_OnText = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.POINTER(ctypes.c_char), ctypes.c_size_t, ctypes.c_void_p)


def _load() -> ctypes.CDLL:
    beside = Path(__file__).with_name("libgemmule.so")
    library = ctypes.CDLL(os.environ.get("GEMMULE_LIBRARY") or (str(beside) if beside.exists() else "libgemmule.so"))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name, result, arguments in [
        ("version", ctypes.c_char_p, []),
        ("last_error", ctypes.c_char_p, []),
        ("model_open", ctypes.c_int, [ctypes.c_char_p, ctypes.c_char_p, pointer]),
        ("model_free", None, [pointer]),
        ("cancel_new", pointer, []),
        ("cancel_set", None, [pointer, ctypes.c_bool]),
        ("cancel_free", None, [pointer]),
        ("session_options_init", None, [pointer]),
        ("session_new", ctypes.c_int, [pointer, pointer, pointer]),
        ("session_free", None, [pointer]),
        ("session_show", ctypes.c_int, [pointer, pointer, size]),
        ("session_show_files", ctypes.c_int, [pointer, pointer, size]),
        ("session_show_features", ctypes.c_int, [pointer, pointer, size]),
        ("session_features", ctypes.c_int, [pointer] * 5),
        ("generate_options_init", None, [pointer]),
        ("session_ask", ctypes.c_int, [pointer, ctypes.c_char_p, pointer, _OnText, pointer, pointer]),
        ("session_mask", ctypes.c_int, [pointer, pointer, size, pointer, size]),
        ("session_score", ctypes.c_int, [pointer, ctypes.c_char_p, pointer, size, pointer]),
        ("answer_text", ctypes.c_char_p, [pointer]),
        ("answer_tokens", size, [pointer, pointer, pointer]),
        ("answer_objects", size, [pointer, pointer]),
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


class Model:
    """An opened model: a GGUF file, a pair, or the bundled one."""

    def __init__(self, path: str | os.PathLike[str] | None = None, mmproj: str | os.PathLike[str] | None = None) -> None:
        self._handle = ctypes.c_void_p()
        paths = [None if path is None else os.fsencode(path) for path in (path, mmproj)]
        _check(_library.gemmule_model_open(*paths, ctypes.byref(self._handle)))

    def session(self, threads: int = 0, isa: str | None = None, generation_threads: int = 0) -> Session:
        """A session; `threads` 0 means one for each physical core, `generation_threads` 0 as many as `threads`."""
        return Session(self, threads, isa, generation_threads)

    def __del__(self) -> None:
        _library.gemmule_model_free(self._handle)


class Session:
    """The memory of one generation at a time; for one thread at a time."""

    def __init__(self, model: Model, threads: int = 0, isa: str | None = None, generation_threads: int = 0) -> None:
        self._handle = ctypes.c_void_p()
        self._cancel = ctypes.c_void_p(_library.gemmule_cancel_new())
        options = _SessionOptions()
        _library.gemmule_session_options_init(ctypes.byref(options))
        options.threads, options.generation_threads = threads, generation_threads
        options.isa = None if isa is None else isa.encode()
        options.cancel = self._cancel
        _check(_library.gemmule_session_new(model._handle, ctypes.byref(options), ctypes.byref(self._handle)))

    def __del__(self) -> None:
        _library.gemmule_session_free(self._handle)
        _library.gemmule_cancel_free(self._cancel)

    def cancel(self) -> None:
        """Ends what the session computes, from any thread: `Cancelled` is raised, now and from then on; an answer that has begun
        ends with what there is."""
        _library.gemmule_cancel_set(self._cancel, True)

    def resume(self) -> None:
        """Takes `cancel` back."""
        _library.gemmule_cancel_set(self._cancel, False)

    def show(self, *images: np.ndarray | str | os.PathLike[str], format: str | None = None) -> None:
        """Encodes the pictures that prompts are about: paths, or uint8 arrays [height, width] or [height, width, channels].
        `format` is one of rgb8, bgr8, rgba8, bgra8, mono8; by default the RGB one of the array's channels."""
        if images and not any(isinstance(image, np.ndarray) for image in images):
            paths = (ctypes.c_char_p * len(images))(*[os.fsencode(image) for image in images])
            return _check(_library.gemmule_session_show_files(self._handle, paths, len(images)))
        kept, views = [], (_Image * len(images))()
        for view, image in zip(views, images):
            if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim not in (2, 3):
                raise ValueError("pictures must be uint8 arrays [height, width] or [height, width, channels], or all paths")
            channels = 1 if image.ndim == 2 else image.shape[2]
            name = format or {1: "mono8", 3: "rgb8", 4: "rgba8"}.get(channels, "")
            if FORMATS.get(name) is None or {"mono8": 1, "rgba8": 4, "bgra8": 4}.get(name, 3) != channels:
                raise ValueError(f"{channels} channels do not make {name or 'a picture'}")
            # Rows may lie apart, pixels and channels may not.
            pixels = image if image.size and image[0].flags.c_contiguous and image.strides[0] > 0 else np.ascontiguousarray(image)
            kept.append(pixels)
            height, width = pixels.shape[:2]
            size = (height - 1) * pixels.strides[0] + width * channels if pixels.size else 0
            view.data, view.size, view.width, view.height = pixels.ctypes.data, size, width, height
            view.row_step, view.format = pixels.strides[0], FORMATS[name]
        _check(_library.gemmule_session_show(self._handle, views, len(images)))

    def show_features(self, features: np.ndarray) -> None:
        """Takes features [images, tokens, hidden] in the place of pictures."""
        features = np.ascontiguousarray(features, np.float32)
        _check(_library.gemmule_session_show_features(self._handle, features.ctypes.data, features.size))

    def features(self) -> np.ndarray:
        """The features of the pictures shown, [images, tokens, hidden]."""
        data, sizes = ctypes.POINTER(ctypes.c_float)(), [ctypes.c_size_t() for _ in range(3)]
        _check(_library.gemmule_session_features(self._handle, ctypes.byref(data), *map(ctypes.byref, sizes)))
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
        _library.gemmule_generate_options_init(ctypes.byref(options))
        options.max_tokens, options.temperature, options.top_k, options.top_p = max_tokens, temperature, top_k, top_p
        options.seed, options.objects_only, options.time_limit = seed, objects_only, time_limit
        options.pattern = None if pattern is None else _text(pattern)

        def hand_over(text: ctypes._Pointer[ctypes.c_char], length: int, _user: object) -> bool:
            try:
                return on_text(ctypes.string_at(text, length).decode()) is not False
            except BaseException as error:
                raised.append(error)
                return False

        handle = ctypes.c_void_p()
        callback = _OnText(hand_over) if on_text else _OnText(0)
        status = _library.gemmule_session_ask(
            self._handle, _text(prompt), ctypes.byref(options), callback, None, ctypes.byref(handle))
        if raised:
            _library.gemmule_answer_free(handle)
            raise raised[0]
        _check(status)
        try:
            return self._read_answer(handle, masks)
        finally:
            _library.gemmule_answer_free(handle)

    def _read_answer(self, handle: ctypes.c_void_p, masks: bool) -> Answer:
        tokens, probabilities = ctypes.POINTER(ctypes.c_uint32)(), ctypes.POINTER(ctypes.c_float)()
        count = _library.gemmule_answer_tokens(handle, ctypes.byref(tokens), ctypes.byref(probabilities))
        objects, found = ctypes.POINTER(_Object)(), []
        for index in range(_library.gemmule_answer_objects(handle, ctypes.byref(objects))):
            one = objects[index]
            segments = tuple(one.segments[:16]) if one.segments else ()
            mask = self._mask(handle, index) if masks and segments else None
            box = tuple(one.pixel_box), tuple(one.normalized_box)
            found.append(Object(one.label.decode(), *box, one.score, segments, mask))
        timings = _library.gemmule_answer_timings(handle)
        return Answer(
            text=_library.gemmule_answer_text(handle).decode(),
            tokens=np.array(tokens[:count], np.uint32),
            probabilities=np.array(probabilities[:count], np.float32),
            objects=found,
            finish=FINISHES[_library.gemmule_answer_finish(handle)],
            timings={name: getattr(timings, name) for name in ("image", "vision", "prefill", "generate")},
            prompt_tokens=timings.prompt_tokens,
        )

    def _mask(self, answer: ctypes.c_void_p, index: int) -> np.ndarray:
        width, height = ctypes.c_uint32(), ctypes.c_uint32()
        _library.gemmule_answer_picture_size(answer, ctypes.byref(width), ctypes.byref(height))
        mask = np.zeros((height.value, width.value), np.bool_)
        _check(_library.gemmule_session_mask(self._handle, answer, index, mask.ctypes.data, mask.size))
        return mask

    def score(self, prompt: str, choices: Sequence[str]) -> np.ndarray:
        """The probabilities of given answers among each other."""
        texts = (ctypes.c_char_p * len(choices))(*[_text(choice) for choice in choices])
        probabilities = np.zeros(len(choices), np.float32)
        _check(_library.gemmule_session_score(
            self._handle, _text(prompt), texts, len(choices), probabilities.ctypes.data))
        return probabilities
