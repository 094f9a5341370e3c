"""What a compiler says of a kernel, for a GPU that is not there.

Triton compiles ahead of time for any GPU it knows, and the compiler's output holds what decides a
kernel's speed before its first run: registers a thread, whether they spill to memory, shared
memory, and whether the matrix units are used. Each operation with Triton kernels says in its
`shipped.py` with which types, tiles and warps it ships them; this file compiles and reads.

It proves that the kernels compile for these GPUs and keep their values in registers. It does not
prove that they run, or how fast.
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from typing import Any, Literal, Protocol

from vocokernels.backends import INTERPRET_SWITCH, is_interpreted
from vocokernels.errors import BackendUnavailableError

Target = Literal["sm_80", "sm_90", "gfx942"]


@dataclass(frozen=True)
class ShippedKernel:
    """One kernel as it will be launched: types, tiles, warps."""

    name: str
    """Of its own: operation, kernel, and what tells this configuration from others."""
    fn: Any
    """The function under `@triton.jit`."""
    signature: Mapping[str, str]
    """Each argument's type: `*bf16`, `*fp32`, `i32`, `fp32`, ..., or `constexpr`. Names that the
    kernel lacks are passed over, here and below, so that kernels can share one table."""
    constexprs: Mapping[str, object]
    """Value of each `constexpr` argument."""
    divisible_by_16: tuple[str, ...] = ()
    """Integer arguments that are multiples of 16; pointers always are."""
    num_warps: int = 4
    num_stages: int = 2
    matrix_units: bool = False
    """Whether its products must run on the matrix units of every target."""


@dataclass(frozen=True)
class Resources:
    """What one thread, block or multiprocessor gives to a compiled kernel."""

    registers: int
    """A thread. On AMD vector registers, accumulation registers included."""
    spill_stores: int
    """Instructions that put a register aside in memory; on AMD registers spilled."""
    spill_loads: int
    """Instructions that fetch one back; on AMD scalar registers spilled."""
    stack_bytes: int
    """A thread."""
    shared_bytes: int
    """A block."""
    occupancy_warps: int
    """Warps that fit on a multiprocessor at once (AMD: waves on a compute unit)."""
    matrix_instruction: str
    """HGMMA or HMMA (NVIDIA), MFMA (AMD), or empty."""


@dataclass(frozen=True)
class _Multiprocessor:
    """Sizes of one, from the vendors' tables."""

    registers: int
    shared_bytes: int
    """For all blocks; each block takes `block_bytes` beyond its own."""
    block_bytes: int
    warps: int
    blocks: int
    threads_a_warp: int
    register_step: int
    """A thread's registers are rounded up to a multiple of this."""


# NVIDIA: CUDA C++ Programming Guide, table of technical specifications per compute capability.
# AMD: CDNA 3 instruction set guide; 4 units of 512 vector registers and 8 waves each.
_MULTIPROCESSORS: dict[Target, _Multiprocessor] = {
    "sm_80": _Multiprocessor(65536, 164 * 1024, 1024, 64, 32, 32, 8),
    "sm_90": _Multiprocessor(65536, 228 * 1024, 1024, 64, 32, 32, 8),
    "gfx942": _Multiprocessor(4 * 512 * 64, 64 * 1024, 0, 32, 32, 64, 8),
}
TARGETS: tuple[Target, ...] = tuple(_MULTIPROCESSORS)


def shipped_kernels() -> list[ShippedKernel]:
    """Every kernel of every operation, in each configuration that is launched, by name.

    Raises:
        BackendUnavailableError: Triton or a tool of its wheel is missing, or it interprets.
    """
    if reason := what_is_missing():
        raise BackendUnavailableError(reason)
    folders = sorted(path.parent.name for path in Path(__file__).parent.glob("*/shipped.py"))
    kernels: list[ShippedKernel] = []
    for operation in folders:
        kernels += import_module(f"vocokernels.{operation}.shipped").shipped()
    return sorted(kernels, key=lambda kernel: kernel.name)


def what_is_missing() -> str:
    """Why kernels cannot be compiled here; empty if they can."""
    if is_interpreted():
        return (
            f"{INTERPRET_SWITCH} is set, so kernels are interpreted and never compiled; expected "
            "it unset. Compile in another process."
        )
    if util.find_spec("triton") is None:
        return (
            "Triton is not installed; expected triton 3.7 or later. Install voco-toolkit[triton]."
        )
    lacking = [name for name in ("ptxas", "cuobjdump") if not _nvidia_tool(name).is_file()]
    if lacking:
        return (
            f"This build of triton lacks {' and '.join(lacking)} in {_nvidia_tool('').parent}; "
            "expected the wheel of PyPI, which brings both."
        )
    return ""


def compile_for(kernel: ShippedKernel, target: Target) -> Resources:
    """Compile one kernel for one GPU and read what it takes.

    Raises:
        BackendUnavailableError: As for `shipped_kernels`.
    """
    if reason := what_is_missing():
        raise BackendUnavailableError(reason)
    compiled = _compiled(kernel, target)
    if target == "gfx942":
        return _amd_resources(compiled, kernel)
    return _nvidia_resources(compiled, target)


class _Compiled(Protocol):
    """The part of Triton's result that is read here."""

    asm: Mapping[str, Any]
    metadata: Any


def _compiled(kernel: ShippedKernel, target: Target) -> _Compiled:
    # the check needs triton, importing this file does not
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.fn.arg_names
    aligned = [
        place
        for place, name in enumerate(names)
        if kernel.signature[name].startswith("*") or name in kernel.divisible_by_16
    ]
    source = ASTSource(
        fn=kernel.fn,
        signature={name: kernel.signature[name] for name in names},
        constexprs={name: kernel.constexprs[name] for name in names if name in kernel.constexprs},
        # what the launcher finds out about pointers and sizes; without it loads are narrow
        attrs={(place,): [["tt.divisibility", 16]] for place in aligned},
    )
    gpu = (
        GPUTarget("hip", target, 64)
        if target == "gfx942"
        else GPUTarget("cuda", int(target.removeprefix("sm_")), 32)
    )
    options = {"num_warps": kernel.num_warps, "num_stages": kernel.num_stages}
    compiled: _Compiled = triton.compile(source, target=gpu, options=options)
    return compiled


def _nvidia_resources(compiled: _Compiled, target: Target) -> Resources:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _cuobjdump("--dump-resource-usage", file.name)
        instructions = _cuobjdump("-sass", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, f"cuobjdump speaks of no registers: {usage}"
    registers, stack_bytes = int(found[1]), int(found[2])
    shared_bytes = int(compiled.metadata.shared)
    return Resources(
        registers=registers,
        spill_stores=len(re.findall(r"\bSTL\b", instructions)),
        spill_loads=len(re.findall(r"\bLDL\b", instructions)),
        stack_bytes=stack_bytes,
        shared_bytes=shared_bytes,
        occupancy_warps=occupancy(
            target, registers, shared_bytes, int(compiled.metadata.num_warps)
        ),
        matrix_instruction=_first_of(("HGMMA", "HMMA"), instructions),
    )


def _amd_resources(compiled: _Compiled, kernel: ShippedKernel) -> Resources:
    text = compiled.asm["amdgcn"]

    def figure(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", text)
        assert found, f"The compiler's notes lack {name}."
        return int(found[1])

    shared_bytes = int(compiled.metadata.shared)
    registers = figure("vgpr_count")
    return Resources(
        registers=registers,
        spill_stores=figure("vgpr_spill_count"),
        spill_loads=figure("sgpr_spill_count"),
        stack_bytes=figure("private_segment_fixed_size"),
        shared_bytes=shared_bytes,
        occupancy_warps=occupancy("gfx942", registers, shared_bytes, kernel.num_warps),
        matrix_instruction="MFMA" if re.search(r"\bv_mfma", text) else "",
    )


def occupancy(target: Target, registers: int, shared_bytes: int, num_warps: int) -> int:
    """Warps on a multiprocessor, whole blocks only.

    >>> occupancy("sm_90", registers=96, shared_bytes=14 * 1024, num_warps=4)
    20
    """
    unit = _MULTIPROCESSORS[target]
    a_thread = -(-max(1, registers) // unit.register_step) * unit.register_step
    blocks = min(
        unit.warps // num_warps,
        unit.registers // (a_thread * unit.threads_a_warp * num_warps),
        unit.shared_bytes // max(1, shared_bytes + unit.block_bytes),
        unit.blocks,
    )
    return blocks * num_warps


def _first_of(names: tuple[str, ...], instructions: str) -> str:
    return next((name for name in names if re.search(rf"\b{name}\b", instructions)), "")


def _nvidia_tool(name: str) -> Path:
    """In the wheel of triton; looked up without importing it."""
    spec = util.find_spec("triton")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "backends/nvidia/bin" / name


def _cuobjdump(*arguments: str) -> str:
    command = [str(_nvidia_tool("cuobjdump")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - the wheel's own tool
