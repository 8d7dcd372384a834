"""Puts the compiled parts into the wheel: packaging/build-wheel says where they are."""

from __future__ import annotations

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledParts(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        names = ("LIBRARY", "PROGRAM", "LICENCES", "PLATFORM")
        found = {name: os.environ.get(f"GEMMULE_WHEEL_{name}") for name in names}
        if not all(found.values()):
            raise RuntimeError("a wheel of gemmule has compiled parts: make it with packaging/build-wheel, which needs a Rust toolchain")
        # ctypes needs nothing of Python's own interface: one wheel serves every version.
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{found['PLATFORM']}"
        build_data["force_include"][found["LIBRARY"]] = "gemmule/libgemmule.so"
        build_data["shared_scripts"][found["PROGRAM"]] = "gemmule"
        build_data["extra_metadata"][found["LICENCES"]] = "licences/THIRD-PARTY.txt"
