"""Pictures as the C library takes them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np

from ._library import FrameFields, library, whole_number

if TYPE_CHECKING:
    import PIL.Image

PixelFormat = Literal["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "yuyv", "uyvy", "nv12", "i420"]
Matrix = Literal["bt601", "bt709", "bt2020"]
Range = Literal["limited", "full"]

FORMATS: dict[str, int] = {
    "rgb8": 0, "bgr8": 1, "rgba8": 2, "bgra8": 3, "mono8": 4, "yuyv": 5, "uyvy": 6, "nv12": 7, "i420": 8,
}
MATRICES: dict[str | None, int] = {None: 0, "bt601": 1, "bt709": 2, "bt2020": 3}
RANGES: dict[str | None, int] = {None: 0, "limited": 1, "full": 2}
CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}


@dataclass(frozen=True)
class Frame:
    """A camera's frame, in bytes: nothing has to be converted first.

    `data` is anything with bytes: `bytes`, a `memoryview`, a NumPy array whose elements follow each other. Rows lie `row_step` bytes
    apart (0: they touch), rows of colour planes `chroma_step` (0: in proportion to `row_step`), and the first plane has `luma_rows` rows
    (0: `height`). `matrix` None means BT.601 up to 576 rows and BT.709 above, `range` None limited for YUV and full for grey.
    """

    data: Any
    width: int
    height: int
    format: PixelFormat
    row_step: int = 0
    chroma_step: int = 0
    luma_rows: int = 0
    matrix: Matrix | None = None
    range: Range | None = None


if TYPE_CHECKING:
    Image = Union[np.ndarray[Any, Any], str, os.PathLike[str], PIL.Image.Image, Frame]


def is_path(image: object) -> bool:
    """Whether a picture is a file's path."""
    return isinstance(image, (str, os.PathLike))


def _named(kind: str, name: str | None, known: dict[Any, int]) -> int:
    if name not in known:
        raise ValueError(f"{name!r} is no {kind}: choose one of {', '.join(str(name) for name in known if name)}")
    return known[name]


def _of_array(image: np.ndarray[Any, Any], format: str | None) -> Frame:
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError("an array must be uint8, [height, width] or [height, width, channels]")
    channels = 1 if image.ndim == 2 else image.shape[2]
    name = format or {1: "mono8", 3: "rgb8", 4: "rgba8"}.get(channels, "")
    if CHANNELS.get(name) != channels:
        raise ValueError(f"{channels} channels do not make {name or 'a picture'}")
    return Frame(np.ascontiguousarray(image), image.shape[1], image.shape[0], name)  # type: ignore[arg-type]


def _frame(image: Any, format: str | None) -> Frame:
    if isinstance(image, np.ndarray):
        return _of_array(image, format)
    if format is not None:
        raise ValueError("format is for arrays: other pictures say themselves what they are")
    if isinstance(image, Frame):
        return image
    if hasattr(image, "convert") and hasattr(image, "getbands"):
        # PIL's; transformers takes them as RGB, too.
        return _of_array(np.asarray(image.convert("RGB")), None)
    if is_path(image):
        raise ValueError("pictures must be all paths, or none of them")
    raise ValueError(f"a {type(image).__name__} is no picture: give a path, a uint8 array, a PIL picture or a Frame")


def frames(images: Sequence[Any], format: str | None) -> tuple[ctypes.Array[FrameFields], list[Any]]:
    """The structs of pictures, and what has to live as long."""
    if format is not None and format not in CHANNELS:
        raise ValueError(f"format is {format!r}: choose one of {', '.join(CHANNELS)} for arrays, and a Frame for others")
    kept: list[Any] = []
    fields = (FrameFields * len(images))()
    for one, image in zip(fields, images):
        frame = _frame(image, format)
        # A copy of our own: whoever has the bytes may change them while they are read.
        view = memoryview(frame.data)
        if view.format not in ("B", "b", "c") or not view.contiguous:
            raise ValueError("a frame's data must be bytes that follow each other: no wider numbers, no slice with gaps")
        data = np.frombuffer(view, np.uint8).copy()
        kept.append(data)
        library.gemmule_frame_init_sized(ctypes.byref(one), ctypes.sizeof(one))
        one.data, one.bytes = data.ctypes.data, data.size
        for name, bits in [("width", 32), ("height", 32), ("luma_rows", 32), ("row_step", 64), ("chroma_step", 64)]:
            setattr(one, name, whole_number(name, getattr(frame, name), bits))
        one.format = _named("pixel format", frame.format, FORMATS)
        one.matrix, one.range = _named("matrix", frame.matrix, MATRICES), _named("range", frame.range, RANGES)
    return fields, kept
