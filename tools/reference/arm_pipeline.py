#!/usr/bin/env python3
"""How many cycles the inner loops for 64-bit ARM take by LLVM's models of the pipelines: an estimate, not a measurement.

usage: arm_pipeline.py [--llvm-mca llvm-mca-19] [--build]
needs: Debian's llvm-19 (older ones lack the Neoverse N1, whose core is the Cortex-A76's) and what .ci/aarch64 installs

Compiles the kernels' tests with Debian's compiler (--build), cuts the innermost loops out of their machine code and prints, for
each format and model, the cycles of a loop, the share of the byte products' peak that a tile reaches, and how many weight bytes
a second one core's row dots take at the clock of the board that has it. Loads are taken to hit the first-level cache.
"""

import argparse
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TARGET = "aarch64-unknown-linux-gnu"
ITERATIONS = 200

# Bytes and values of a block.
FORMATS = {"Q4_0": (18, 32), "Q8_0": (34, 32), "Q4K": (144, 256), "Q5K": (176, 256), "Q6K": (210, 256)}


@dataclass
class Core:
    """What is asked of a model: which kernels it runs, its clock in GHz, and its byte products a cycle at most."""
    model: str
    kernels: str
    clock: float
    products: int
    name: str


# An A72 has one multiplier of 128 bits, which takes half a vector of bytes in each instruction and adds pairs with another.
CORES = [
    Core("neoverse-n1", "dotprod", 2.4, 32, "Cortex-A76's core (Raspberry Pi 5), as Neoverse N1"),
    Core("cortex-a76", "dotprod", 2.4, 32, "Cortex-A76 with A57's model"),
    Core("cortex-a72", "plain", 1.8, 8, "Cortex-A72 (Raspberry Pi 4) with A57's model"),
]


def build():
    environment = {"RUSTC": "/usr/bin/rustc", "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER": "aarch64-linux-gnu-gcc",
                   "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS": "-C symbol-mangling-version=v0"}
    import os
    subprocess.run(["cargo", "test", "--locked", "--release", "--target", TARGET, "--target-dir", "target/arm-pipeline",
                    "-p", "gemmule-quant", "--test", "kernels", "--no-run"],
                   cwd=REPOSITORY, env=os.environ | environment, check=True)


def functions():
    """Instructions of each function: (address, text)."""
    folder = REPOSITORY / "target/arm-pipeline" / TARGET / "release/deps"
    programs = [path for path in folder.glob("kernels-*") if path.suffix == ""]
    program = max(programs, key=lambda path: path.stat().st_mtime)
    listing = subprocess.run(["aarch64-linux-gnu-objdump", "-d", "-C", "--no-show-raw-insn", program],
                             capture_output=True, text=True, check=True).stdout
    name, found = None, {}
    for line in listing.splitlines():
        if header := re.match(r"^[0-9a-f]+ <(.*)>:$", line):
            name = header[1]
            found[name] = []
        elif instruction := re.match(r"^\s+([0-9a-f]+):\s+(.*)$", line):
            found[name].append((int(instruction[1], 16), instruction[2].split("//")[0].strip()))
    return found


BRANCH = re.compile(r"^(b|b\.\w+|cbn?z|tbn?z)\s+(.*?)([0-9a-f]+) <")


def innermost_loops(code):
    """Stretches from the target of a branch backwards to that branch, without another one inside."""
    index = {address: position for position, (address, _) in enumerate(code)}
    ends = []
    for position, (address, text) in enumerate(code):
        branch = BRANCH.match(text)
        if branch and (target := index.get(int(branch[3], 16))) is not None and target <= position:
            ends.append((target, position))
    return [[text for _, text in code[first:last + 1]] for first, last in ends
            if not any((a, b) != (first, last) and first <= a and b <= last for a, b in ends)]


def cycles(mca, core, loop):
    """Cycles of a loop in the steady state."""
    lines = [".L:"]
    for text in loop:
        branch = BRANCH.match(text)
        lines.append(f"{branch[1]} {branch[2]}.L" if branch else re.sub(r"\s*<.*>", "", text))
    command = [mca, "--march=aarch64", f"--mcpu={core.model}", "--mattr=+dotprod", f"--iterations={ITERATIONS}"]
    report = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True).stdout
    return int(re.search(r"Total Cycles:\s+(\d+)", report)[1]) / ITERATIONS


def products_in(loop):
    """Byte products of a loop: sixteen in sdot, eight in each widening multiplication."""
    return sum(16 if text.startswith("sdot") else 8 if re.match(r"(smull|smlal|smull2|smlal2)\s", text) else 0 for text in loop)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llvm-mca", default="llvm-mca-19")
    parser.add_argument("--build", action="store_true")
    options = parser.parse_args()
    if options.build:
        build()
    code = functions()
    print("| core | format | tile: cycles | byte products a cycle, of the most | row: cycles for 32 weights | GB/s of one core |")
    print("|---|---|---|---|---|---|")
    for core in CORES:
        for name, (block_bytes, block_values) in FORMATS.items():
            kind = {"dotprod": "dotprod", "plain": "plain"}[core.kernels]
            rows = [loop for symbol, body in code.items() if f"rows::{kind}::dot_integer" in symbol and f"::{name}>" in symbol
                    for loop in innermost_loops(body) if products_in(loop)]
            # One row of activations: the loop with the fewest products for each block.
            row = min(rows, key=products_in)
            values = products_in(row)
            row_cycles = cycles(options.llvm_mca, core, row)
            speed = core.clock * values / block_values * block_bytes / row_cycles
            line = f"{32 * row_cycles / values:.1f} | {speed:.1f}"
            tiles = [loop for symbol, body in code.items() if f"tiles::" in symbol and kind in symbol
                     for loop in innermost_loops(body) if products_in(loop)]
            print(core.name, name, len(rows), len(tiles), values, row_cycles, line, [products_in(t) for t in tiles])


if __name__ == "__main__":
    main()
