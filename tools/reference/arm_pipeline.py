#!/usr/bin/env python3
"""How many cycles the inner loops for 64-bit ARM take by LLVM's models of the pipelines: an estimate, not a measurement.

usage: arm_pipeline.py [--build] [--llvm-mca llvm-mca-19]
needs: Debian's llvm-19 (older ones lack the Neoverse N1, whose core is the Cortex-A76's) and what .ci/aarch64 installs

Compiles the kernels with Debian's compiler (--build), cuts loops out of the machine code and has their pipeline modelled, loads
taken to hit the first-level cache. Prints for each core and format how fast one row of weights is read in generation, and for
each core what share of the byte products' peak the tile of a prompt reaches.
"""

import argparse
import os
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
    """A processor: LLVM's model, our kernels, its clock in GHz, its cores, most byte products a cycle, and its memory in GB/s."""
    name: str
    model: str
    kernels: str
    clock: float
    cores: int
    products: int
    memory: float


# Two `sdot` of 16 products a cycle; an A72 has one multiplier, which takes 8 bytes at a time. Memory: the boards' STREAM figures.
CORES = [
    Core("Cortex-A76 (Raspberry Pi 5) as Neoverse N1", "neoverse-n1", "dotprod", 2.4, 4, 32, 12),
    Core("Cortex-A76 with the A57's model", "cortex-a76", "dotprod", 2.4, 4, 32, 12),
    Core("Cortex-A72 (Raspberry Pi 4) with the A57's model", "cortex-a72", "plain", 1.8, 4, 8, 4),
]


def build():
    environment = {
        "RUSTC": "/usr/bin/rustc",
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER": "aarch64-linux-gnu-gcc",
        # Names that say which format a function is for.
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS": "-C symbol-mangling-version=v0",
    }
    command = ["cargo", "test", "--locked", "--release", "--target", TARGET, "--target-dir", "target/arm-pipeline",
               "-p", "gemmule-quant", "--test", "kernels", "--no-run"]
    subprocess.run(command, cwd=REPOSITORY, env=os.environ | environment, check=True)


def functions():
    """The instructions of each function: (address, text)."""
    folder = REPOSITORY / "target/arm-pipeline" / TARGET / "release/deps"
    programs = [path for path in folder.glob("kernels-*") if path.suffix == ""]
    if not programs:
        raise SystemExit("nothing is built: add --build")
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


def loops(code):
    """Stretches (first, last) from the target of a branch backwards to that branch, the longest for each beginning."""
    index = {address: position for position, (address, _) in enumerate(code)}
    found = {}
    for position, (_, text) in enumerate(code):
        branch = BRANCH.match(text)
        if branch and (target := index.get(int(branch[3], 16))) is not None and target <= position:
            found[target] = position
    return list(found.items())


def products_of(code):
    """Byte products: sixteen in a `sdot`, eight in a widening multiplication."""
    return sum(16 if text.startswith("sdot") else 8 if re.match(r"(smull|smlal)2?\s", text) else 0 for _, text in code)


def innermost(code):
    """Loops with products and without a loop inside, each with the smallest loop around it."""
    every = loops(code)
    inside = lambda inner, outer: inner != outer and outer[0] <= inner[0] and inner[1] <= outer[1]
    for loop in every:
        if products_of(code[loop[0]:loop[1] + 1]) and not any(inside(other, loop) for other in every):
            around = [other for other in every if inside(loop, other)]
            yield loop, min(around, key=lambda other: other[1] - other[0], default=None)


def cycles(mca, core, code):
    """Cycles of a loop's body in the steady state."""
    lines = [".L:"]
    for _, text in code:
        branch = BRANCH.match(text)
        lines.append(f"{branch[1]} {branch[2]}.L" if branch else re.sub(r"\s*<.*>", "", text))
    command = [mca, "--march=aarch64", f"--mcpu={core.model}", "--mattr=+dotprod", f"--iterations={ITERATIONS}"]
    report = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True).stdout
    return int(re.search(r"Total Cycles:\s+(\d+)", report)[1]) / ITERATIONS


def unrolled(code, inner, outer, times):
    """The outer loop's body with the inner one `times` times."""
    body = code[inner[0]:inner[1] + 1]
    return code[outer[0]:inner[0]] + body * times + code[inner[1] + 1:outer[1] + 1]


def row_cycles(mca, core, code, block_values):
    """Cycles of a block of one row of weights times one row of activations."""
    inner, outer = min(innermost(code), key=lambda pair: products_of(code[pair[0][0]:pair[0][1] + 1]))
    times = block_values // products_of(code[inner[0]:inner[1] + 1])
    whole = code[inner[0]:inner[1] + 1] if times == 1 else unrolled(code, inner, outer, times)
    return cycles(mca, core, whole)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--llvm-mca", default="llvm-mca-19")
    options = parser.parse_args()
    if options.build:
        build()
    code = functions()
    one = lambda *parts: next(body for name, body in code.items() if all(part in name for part in parts))
    print("| core | format | cycles for 32 weights | GB/s, one core | all cores, of the memory's |\n|---|---|---|---|---|")
    for core in CORES:
        for name, (block_bytes, values) in FORMATS.items():
            taken = row_cycles(options.llvm_mca, core, one(f"rows::{core.kernels}::dot_integer", f"::{name}>"), values)
            speed = core.clock * block_bytes / taken
            share = speed * core.cores / core.memory
            print(f"| {core.name} | {name} | {taken * 32 / values:.1f} | {speed:.1f} | {share:.1f} of {core.memory:.0f} GB/s |")
    print("\n| core | tile: cycles for 32 × 4 rows × 16 columns | of the peak |\n|---|---|---|")
    for core in CORES:
        # The largest tile; a group of 32 takes its loop several times, then scales and biases are applied.
        body = one("tiles::", core.kernels)
        inner, outer = max(innermost(body), key=lambda pair: products_of(body[pair[0][0]:pair[0][1] + 1]))
        rows = 4 if core.kernels == "dotprod" else 2
        products = 32 * rows * 16
        times = products // products_of(body[inner[0]:inner[1] + 1])
        taken = cycles(options.llvm_mca, core, unrolled(body, inner, outer, times)) * 4 / rows
        print(f"| {core.name} | {taken:.0f} | {32 * 4 * 16 / core.products / taken:.0%} |")


if __name__ == "__main__":
    main()
