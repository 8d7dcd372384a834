"""The C library: its functions, structs and errors, and values as it takes them."""

from __future__ import annotations

import ctypes
import math
import operator
import os
from pathlib import Path

class Error(RuntimeError):
    """What the library says went wrong."""


class Cancelled(Error):
    """`Session.cancel` ended the work before it had a result."""


class SessionOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("threads", ctypes.c_uint32), ("isa", ctypes.c_char_p),
                ("generation_threads", ctypes.c_uint32), ("cancel", ctypes.c_void_p)]


class GenerateOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("max_tokens", ctypes.c_uint32), ("temperature", ctypes.c_float),
                ("top_k", ctypes.c_uint32), ("top_p", ctypes.c_float), ("seed", ctypes.c_uint64),
                ("pattern", ctypes.c_char_p), ("objects_only", ctypes.c_bool), ("time_limit", ctypes.c_uint32)]


class FrameFields(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t), ("width", ctypes.c_uint32),
                ("height", ctypes.c_uint32), ("row_step", ctypes.c_size_t), ("chroma_step", ctypes.c_size_t),
                ("luma_rows", ctypes.c_uint32), ("format", ctypes.c_uint32), ("matrix", ctypes.c_uint32), ("range", ctypes.c_uint32)]


class ObjectFields(ctypes.Structure):
    _fields_ = [("label", ctypes.c_char_p), ("normalized_box", ctypes.c_float * 4), ("pixel_box", ctypes.c_float * 4),
                ("score", ctypes.c_float)]


class TimingFields(ctypes.Structure):
    _fields_ = [("image", ctypes.c_double), ("vision", ctypes.c_double), ("prefill", ctypes.c_double),
                ("generate", ctypes.c_double), ("prompt_tokens", ctypes.c_size_t)]


OnText = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.POINTER(ctypes.c_char), ctypes.c_size_t, ctypes.c_void_p)


def load() -> ctypes.CDLL:
    beside = Path(__file__).with_name("libgemmule.so")
    loaded = ctypes.CDLL(os.environ.get("GEMMULE_LIBRARY") or (str(beside) if beside.exists() else "libgemmule.so.0"))
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
        ("frame_init_sized", None, [pointer, size]),
        ("session_show_frames", ctypes.c_int, [pointer, pointer, size]),
        ("session_show_files", ctypes.c_int, [pointer, pointer, size]),
        ("session_show_features", ctypes.c_int, [pointer, pointer, size]),
        ("session_features", ctypes.c_int, [pointer] * 5),
        ("generate_options_init_sized", None, [pointer, size]),
        ("session_ask", ctypes.c_int, [pointer, ctypes.c_char_p, pointer, OnText, pointer, pointer]),
        ("session_mask", ctypes.c_int, [pointer, pointer, size, pointer, size]),
        ("session_score", ctypes.c_int, [pointer, ctypes.c_char_p, pointer, size, pointer]),
        ("answer_text", ctypes.c_char_p, [pointer]),
        ("answer_tokens", size, [pointer, pointer, pointer]),
        ("answer_objects", size, [pointer, pointer]),
        ("answer_segments", ctypes.POINTER(ctypes.c_uint16), [pointer, size]),
        ("answer_picture_size", None, [pointer, pointer, pointer]),
        ("answer_finish", ctypes.c_int, [pointer]),
        ("answer_timings", TimingFields, [pointer]),
        ("answer_free", None, [pointer]),
    ]:
        function = getattr(loaded, f"gemmule_{name}")
        function.restype, function.argtypes = result, arguments
    return loaded


library = load()


def check(status: int) -> None:
    if status:
        raise (Cancelled if status == 4 else Error)(library.gemmule_last_error().decode())


def c_text(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("a text must not hold a zero character")
    return text.encode()


def c_path(path: str | os.PathLike[str]) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("a path must not hold a zero character")
    return encoded


def whole_number(name: str, value: int, bits: int = 32) -> int:
    """A whole number that C can hold; ctypes would wrap others around."""
    number = operator.index(value)
    if not 0 <= number < 1 << bits:
        raise ValueError(f"{name} is {number}, not from 0 to {(1 << bits) - 1}")
    return number


def real_number(name: str, value: float) -> float:
    number = float(value)
    if not math.isfinite(number) or abs(number) > 3e38:
        raise ValueError(f"{name} is {number}, no number that can be used")
    return number
