"""Models, sessions and answers."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _library, _pictures
from ._library import Cancelled, Error, check, c_path, c_text, library, real_number, whole_number

if TYPE_CHECKING:
    from ._pictures import Image

FINISHES = ("end_token", "max_tokens", "stopped", "deadline")


def version() -> str:
    """The library's version."""
    text: bytes = library.gemmule_version()
    return text.decode()


@dataclass(frozen=True)
class Object:
    """An object that an answer names.

    `box` is x_min, y_min, x_max, y_max in pixels (zeros where the answer is about several pictures or features), `normalized_box` the
    same in parts of the picture. `segments` are the sixteen codes of its mask, where the answer has one; `mask` is that in the picture,
    [height, width], where it was asked for.
    """

    label: str
    box: tuple[float, float, float, float]
    normalized_box: tuple[float, float, float, float]
    score: float
    segments: tuple[int, ...] = ()
    mask: npt.NDArray[np.bool_] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Answer:
    """An answer; times are in milliseconds."""

    text: str
    tokens: npt.NDArray[np.uint32]
    probabilities: npt.NDArray[np.float32]
    objects: list[Object]
    finish: str
    timings: dict[str, float]
    prompt_tokens: int


class _Question:
    """A prompt and options, as the library takes them."""

    def __init__(
        self,
        prompt: str,
        max_tokens: int,
        temperature: float,
        top_k: int,
        top_p: float,
        seed: int,
        pattern: str | None,
        objects_only: bool,
        time_limit: int,
        masks: bool,
    ) -> None:
        self.prompt, self.masks = c_text(prompt), masks
        self.options = options = _library.GenerateOptions()
        library.gemmule_generate_options_init_sized(ctypes.byref(options), ctypes.sizeof(options))
        options.max_tokens, options.top_k = whole_number("max_tokens", max_tokens), whole_number("top_k", top_k)
        options.temperature, options.top_p = real_number("temperature", temperature), real_number("top_p", top_p)
        options.seed, options.time_limit = whole_number("seed", seed, 64), whole_number("time_limit", time_limit)
        options.objects_only = bool(objects_only)
        options.pattern = None if pattern is None else c_text(pattern)


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

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError(f"a {type(self).__name__} is neither copied nor pickled: make another one")


class Model(_Owner):
    """An opened model: a GGUF file, a pair, or the bundled one. Any number of threads may make sessions on it."""

    def __init__(self, path: str | os.PathLike[str] | None = None, mmproj: str | os.PathLike[str] | None = None) -> None:
        if self._handle is not None:
            raise Error("the model is open already")
        self._lock, handle = threading.Lock(), ctypes.c_void_p()
        paths = [None if path is None else c_path(path) for path in (path, mmproj)]
        check(library.gemmule_model_open(*paths, ctypes.byref(handle)))
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
                library.gemmule_model_free(handle)

    def __enter__(self) -> Model:
        self._give()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Session(_Owner):
    """The memory of one generation at a time. At the end of a `with` it is closed.

    As a connection of sqlite3, it belongs to the thread that made it, and refuses others: a picture that one thread shows must not be
    what another one's prompt is about. With `check_same_thread=False` any thread may use it, one after the other; who shows and asks
    from several threads holds it meanwhile:

        with session.hold():
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
        self._busy = False
        # The thread in whose callback we are, and the stream that is open, which ends where nobody reads it any more.
        self._calls: int | None = None
        self._streams: weakref.ref[Stream] | None = None
        options, handle = _library.SessionOptions(), ctypes.c_void_p()
        library.gemmule_session_options_init_sized(ctypes.byref(options), ctypes.sizeof(options))
        options.threads, options.generation_threads = whole_number("threads", threads), whole_number("generation_threads", generation_threads)
        options.isa = None if isa is None else c_text(isa)
        with model._lock:
            owner = model._give()
            self._cancel = ctypes.c_void_p(library.gemmule_cancel_new())
            options.cancel = self._cancel
            try:
                check(library.gemmule_session_new(owner, ctypes.byref(options), ctypes.byref(handle)))
            except BaseException:
                library.gemmule_cancel_free(self._cancel)
                raise
        self._take(handle)

    def _check_thread(self) -> None:
        self._give()
        if self._calls == threading.get_ident():
            raise Error("the session is answering: on_text must not use it")
        if self._streams is not None and self._streams() is not None:
            raise Error("a stream of the session is open: read it to its end, or close it")
        if self._process != os.getpid():
            raise Error("the session was made before a fork: its threads are not in this process, so make another one here")
        if self._thread is not None and self._thread != threading.get_ident():
            raise Error("the session belongs to the thread that made it: make one in each thread, or with check_same_thread=False")

    @contextlib.contextmanager
    def _use(self) -> Iterator[ctypes.c_void_p]:
        """The handle, for one call at a time."""
        self._check_thread()
        with self._lock:
            handle = self._begin()
            try:
                yield handle
            finally:
                self._busy = False

    def _begin(self) -> ctypes.c_void_p:
        """The handle, for who sets `_busy` back."""
        handle = self._give()
        if self._busy:
            raise Error("the session is answering: it must not be used meanwhile")
        self._busy = True
        return handle

    @contextlib.contextmanager
    def hold(self) -> Iterator[Session]:
        """Keeps other threads from using the session meanwhile."""
        self._check_thread()
        with self._lock:
            yield self

    def __enter__(self) -> Session:
        self._check_thread()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Frees the session."""
        if self._handle is None:
            return
        if self._process != os.getpid():
            self._handle = None
            return
        if self._calls == threading.get_ident():
            raise Error("the session is answering: on_text must not close it")
        stream = None if self._streams is None else self._streams()
        if stream is not None:
            stream.close()
        with self._lock, self._cancel_lock:
            if self._busy:
                raise Error("the session is answering: it must not be closed meanwhile")
            handle, self._handle = self._handle, None
            if handle is not None:
                library.gemmule_session_free(handle)
                library.gemmule_cancel_free(self._cancel)

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
            library.gemmule_cancel_set(self._cancel, value)

    def show(self, *images: Image, format: str | None = None) -> None:
        """Encodes the pictures that prompts are about: paths; or uint8 arrays [height, width] or [height, width, channels], pictures
        of PIL, and `Frame`s. `format` tells what arrays are: rgb8, bgr8, rgba8, bgra8 or mono8; by default the RGB one of their
        channels. PIL's pictures are taken as they are: files are turned upright only where they are given as paths."""
        if images and all(_pictures.is_path(image) for image in images):
            if format is not None:
                raise ValueError("format is for arrays: files say themselves what they are")
            paths = (ctypes.c_char_p * len(images))(*[c_path(image) for image in images])  # type: ignore[arg-type]
            with self._use() as handle:
                return check(library.gemmule_session_show_files(handle, paths, len(images)))
        fields, kept = _pictures.frames(images, format)
        with self._use() as handle:
            check(library.gemmule_session_show_frames(handle, fields, len(images)))
        del kept

    def show_features(self, features: npt.ArrayLike) -> None:
        """Takes features [images, tokens, hidden] in the place of pictures."""
        copied = np.array(features, np.float32, order="C", copy=True)
        with self._use() as handle:
            check(library.gemmule_session_show_features(handle, copied.ctypes.data, copied.size))

    def features(self) -> npt.NDArray[np.float32]:
        """The features of the pictures shown, [images, tokens, hidden]."""
        data, sizes = ctypes.POINTER(ctypes.c_float)(), [ctypes.c_size_t() for _ in range(3)]
        with self._use() as handle:
            check(library.gemmule_session_features(handle, ctypes.byref(data), *map(ctypes.byref, sizes)))
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
        """The answer to a prompt about the pictures shown.

        `max_tokens` is the most tokens it has. `temperature` 0 takes the likeliest token each time; larger ones vary the answer, among
        the `top_k` likeliest tokens (0: all) and those of total probability `top_p`, by `seed`. `pattern` is a regular expression that
        the answer matches; with `objects_only` it is a list of whole objects. With a `time_limit` in milliseconds it ends with what
        there is by then. With `masks` the masks in it are decoded, which the model has to hold a decoder for.

        `on_text` takes each piece as soon as it is certain; if it returns False the answer ends. An exception in it ends the answer and
        is raised here.
        """
        question = _Question(prompt, max_tokens, temperature, top_k, top_p, seed, pattern, objects_only, time_limit, masks)
        with self._use() as handle:
            return self._answer(handle, question, on_text)

    def stream(
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
    ) -> Stream:
        """The pieces of an answer, each as soon as it is certain; the options are those of `ask`. Until its end, or until it is
        closed, the session does nothing else."""
        question = _Question(prompt, max_tokens, temperature, top_k, top_p, seed, pattern, objects_only, time_limit, masks)
        self._check_thread()
        with self._lock:
            self._check_thread()
            handle = self._begin()
            try:
                return Stream(self, handle, question)
            except BaseException:
                self._busy = False
                raise

    def _answer(self, handle: ctypes.c_void_p, question: _Question, on_text: Callable[[str], bool | None] | None) -> Answer:
        raised: list[BaseException] = []

        def hand_over(text: Any, length: int, _user: object) -> bool:
            assert on_text is not None
            self._calls = threading.get_ident()
            try:
                return on_text(ctypes.string_at(text, length).decode()) is not False
            except BaseException as error:
                raised.append(error)
                return False
            finally:
                self._calls = None

        answer = ctypes.c_void_p()
        callback = _library.OnText(hand_over) if on_text else _library.OnText(0)
        options, out = ctypes.byref(question.options), ctypes.byref(answer)
        status = library.gemmule_session_ask(handle, question.prompt, options, callback, None, out)
        try:
            if raised:
                raise raised[0]
            check(status)
            return self._read_answer(handle, answer, question.masks)
        finally:
            library.gemmule_answer_free(answer)

    def _read_answer(self, session: ctypes.c_void_p, answer: ctypes.c_void_p, masks: bool) -> Answer:
        tokens, probabilities = ctypes.POINTER(ctypes.c_uint32)(), ctypes.POINTER(ctypes.c_float)()
        count = library.gemmule_answer_tokens(answer, ctypes.byref(tokens), ctypes.byref(probabilities))
        objects, found = ctypes.POINTER(_library.ObjectFields)(), []
        for index in range(library.gemmule_answer_objects(answer, ctypes.byref(objects))):
            one, codes = objects[index], library.gemmule_answer_segments(answer, index)
            segments = tuple(codes[:16]) if codes else ()
            mask = self._mask(session, answer, index) if masks and segments else None
            box = tuple(one.pixel_box), tuple(one.normalized_box)
            found.append(Object(one.label.decode(), *box, one.score, segments, mask))
        timings = library.gemmule_answer_timings(answer)
        return Answer(
            text=library.gemmule_answer_text(answer).decode(),
            tokens=np.array(tokens[:count], np.uint32),
            probabilities=np.array(probabilities[:count], np.float32),
            objects=found,
            finish=FINISHES[library.gemmule_answer_finish(answer)],
            timings={name: getattr(timings, name) for name in ("image", "vision", "prefill", "generate")},
            prompt_tokens=timings.prompt_tokens,
        )

    def _mask(self, session: ctypes.c_void_p, answer: ctypes.c_void_p, index: int) -> npt.NDArray[np.bool_]:
        width, height = ctypes.c_uint32(), ctypes.c_uint32()
        library.gemmule_answer_picture_size(answer, ctypes.byref(width), ctypes.byref(height))
        mask = np.zeros((height.value, width.value), np.bool_)
        check(library.gemmule_session_mask(session, answer, index, mask.ctypes.data, mask.size))
        return mask

    def score(self, prompt: str, choices: Sequence[str]) -> npt.NDArray[np.float32]:
        """The probabilities of given answers among each other."""
        if isinstance(choices, str):
            raise TypeError("choices are several texts, not one")
        texts = (ctypes.c_char_p * len(choices))(*[c_text(choice) for choice in choices])
        probabilities = np.zeros(len(choices), np.float32)
        text = c_text(prompt)
        with self._use() as handle:
            check(library.gemmule_session_score(handle, text, texts, len(choices), probabilities.ctypes.data))
        return probabilities


class Stream(Iterator[str]):
    """The pieces of an answer. A thread computes ahead of whoever reads them.

        with session.stream("caption en") as pieces:
            for piece in pieces:
                print(piece, end="", flush=True)
        print(pieces.answer.tokens)
    """

    answer: Answer | None = None
    """The whole answer, once the last piece has been read. One that was closed before ends with what there was."""

    def __init__(self, session: Session, handle: ctypes.c_void_p, question: _Question) -> None:
        self._session: Session | None = session
        # The thread must not keep the stream: who drops it closes it.
        made: queue.SimpleQueue[str | Answer | BaseException] = queue.SimpleQueue()
        stop = threading.Event()

        def hand_over(piece: str) -> bool:
            made.put(piece)
            return not stop.is_set()

        def work() -> None:
            end: Answer | BaseException
            try:
                end = session._answer(handle, question, hand_over)
            except BaseException as error:
                end = error
            session._busy = False
            made.put(end)

        self._made, self._stop = made, stop
        self._thread = threading.Thread(target=work, name="gemmule stream", daemon=True)
        self._thread.start()
        session._streams = weakref.ref(self)
        _open_streams.add(self)

    def __next__(self) -> str:
        if self._session is None:
            raise StopIteration
        piece = self._made.get()
        if isinstance(piece, str):
            return piece
        # For others that wait here.
        self._made.put(piece)
        self._end()
        if isinstance(piece, BaseException):
            raise piece
        self.answer = piece
        raise StopIteration

    def _end(self) -> None:
        # Not where the collector of garbage runs in that thread. An interruption leaves the stream open: it may be closed again.
        if self._thread is not threading.current_thread():
            self._thread.join()
        session, self._session = self._session, None
        if session is not None:
            session._streams = None
        _open_streams.discard(self)

    def close(self) -> None:
        """Ends the answer; the session can be used again."""
        if self._session is None:
            return
        self._stop.set()
        self._end()
        while not self._made.empty():
            made = self._made.get()
            if isinstance(made, Answer):
                self.answer = made
            elif isinstance(made, BaseException) and not isinstance(made, Cancelled):
                raise made

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Error):
            self.close()


_open_streams: weakref.WeakSet[Stream] = weakref.WeakSet()


@atexit.register
def _end_streams() -> None:
    """A thread that calls back while the interpreter ends would end the process with it."""
    for stream in list(_open_streams):
        session = stream._session
        if session is not None:
            with contextlib.suppress(Error):
                session.cancel()
        with contextlib.suppress(BaseException):
            stream.close()
