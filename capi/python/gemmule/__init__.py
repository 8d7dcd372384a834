"""PaliGemma vision-language models on ordinary CPUs.

    import gemmule

    with gemmule.Model("paligemma2.gguf") as model:         # or Model() for the bundled one
        session = model.session()
        session.show("street.jpg")                          # or a NumPy array [height, width, 3], a PIL picture, a Frame
        for piece in session.stream("caption en"):
            print(piece, end="", flush=True)
        print(session.ask("detect car").objects)

A GGUF file comes from `gemmule-quantize`, or from the first run of `gemmule run -m google/paligemma2-3b-mix-224 …`, which tells where
it keeps it. The C library is found in GEMMULE_LIBRARY, beside this file, or where the system looks for libgemmule.so.0.
"""

from ._library import Cancelled, Error
from ._pictures import Frame
from ._session import Answer, Model, Object, Session, Stream, version

__all__ = ["Answer", "Cancelled", "Error", "Frame", "Model", "Object", "Session", "Stream", "version"]
__version__ = version()
