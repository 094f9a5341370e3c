"""A machine that says it has a GPU: tensors "on cuda:0" are the processor's in disguise.

It shows that code which only a GPU runs does run, that all tensors of an operation lie on one
device, and what happens when memory ends or a compiler fails. It shows nothing of what a GPU
computes, of races, streams or speed. Triton's kernels run by its interpreter.

    TRITON_INTERPRET=1 python -m tests.vocotrain.bench_kernels.pretended_gpu FOLDER

runs each of SCENARIOS and writes what it printed into FOLDER.
"""

import contextlib
import io
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

PLACE = torch.device("cuda", 0)
NAME = "Pretended GPU"
# what may see tensors of two devices, or is no operation
MEET = {"to", "copy_", "__getitem__", "__get__", "__set__", "_has_compatible_shallow_copy_type"}
plain_autocast = torch.autocast


class Machine(NamedTuple):
    """What the pretended GPU is like."""

    most_bytes: int = 2**62
    """Larger tensors of floats do not fit."""
    has_bf16: bool = True
    has_triton: bool = True
    compiler: str = ""
    """What torch's compiler complains of; empty when it works."""


class Now:
    """The machine that this process is."""

    machine: ClassVar[Machine] = Machine()
    peak_bytes: ClassVar[int] = 0
    """Largest tensor since the last reset."""


class Disguised(torch.Tensor):
    """A tensor that says it lies on the GPU; `inner` has the numbers and learns the gradients."""

    @staticmethod
    def __new__(cls, inner):
        found = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=PLACE
        )
        found.inner = inner
        return found

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise NotImplementedError(f"{func} reached a disguise itself")


class Pretence(TorchFunctionMode):
    """Sees the making of tensors, too."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def run(func, args, kwargs):
    """Take disguises off, run, put them on again."""
    if func is torch.device or func is torch._C._nn._parse_to:
        return func(*args, **kwargs)
    name = getattr(func, "__name__", "")
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    disguised = [one for one in given if isinstance(one, Disguised)]
    if disguised and name == "__get__":
        if func.__self__ is torch.Tensor.device:
            return PLACE
        if func.__self__ is torch.Tensor.is_cuda:
            return True
    if disguised and name not in MEET:
        check_one_place(name, given)
    with torch._C.DisableTorchFunctionSubclass():
        out = func(*tree_map(uncovered, args), **tree_map(uncovered, kwargs))
    named = named_place(name, args, kwargs)
    if named == "cpu" or (named is None and not disguised):
        return out
    # what works in place gives its own argument back
    known = {id(one.inner): one for one in disguised}
    return tree_map(lambda one: covered(one, known), out)


def named_place(name, args, kwargs):
    """The kind of device that a call asks for, or None."""
    if name in {"cpu", "numpy"}:
        return "cpu"
    for one in (kwargs.get("device"), *(args[1:2] if name == "to" else ())):
        if isinstance(one, (torch.device, Disguised)):
            return "cuda" if isinstance(one, Disguised) else one.type
        if isinstance(one, str):
            return torch.device(one).type
    return None


def check_one_place(name, given):
    """As CUDA does; a number alone may come from anywhere."""
    if any(not isinstance(one, Disguised) and one.dim() for one in given):
        raise RuntimeError(f"Expected all tensors to be on the same device: {name}")


def uncovered(one):
    if isinstance(one, Disguised):
        return one.inner
    is_gpu = isinstance(one, (torch.device, str)) and str(one) in {"cuda", "cuda:0"}
    return torch.device("cpu") if is_gpu else one


def covered(one, known):
    if not isinstance(one, torch.Tensor) or isinstance(one, Disguised):
        return one
    size = one.numel() * one.element_size()
    if one.is_floating_point() and size > Now.machine.most_bytes:
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
    Now.peak_bytes = max(Now.peak_bytes, size)
    return known[id(one)] if id(one) in known else Disguised(one)


class Event:
    """A mark that must be recorded, and waited for before it is asked."""

    def __init__(self, enable_timing=False):
        self.is_timed, self.recorded_s, self.is_waited_for = enable_timing, None, False

    def record(self):
        self.recorded_s = time.perf_counter()

    def synchronize(self):
        self.is_waited_for = self.recorded_s is not None

    def elapsed_time(self, later):
        if not (self.is_timed and later.is_timed and later.is_waited_for):
            raise RuntimeError("Both events must be recorded before calculating elapsed time.")
        return 1e3 * (later.recorded_s - self.recorded_s)


class Properties(NamedTuple):
    L2_cache_size: int = 2**20
    major: int = 9
    minor: int = 0
    total_memory: int = 2**34
    multi_processor_count: int = 4


class Size(NamedTuple):
    head_width: int = 40


def autocast(device_type, dtype=None, enabled=True, **more):
    place = "cpu" if device_type == "cuda" else device_type
    return plain_autocast(place, dtype=dtype, enabled=enabled, **more)


def flex_attention(q, k, v, score_mod):
    """What torch's computes, all scores at once."""
    axes = [torch.arange(length, device=q.device) for length in (*q.shape[:3], k.shape[2])]
    places = torch.meshgrid(*axes, indexing="ij")
    scores = score_mod((q @ k.mT).float() * q.shape[3] ** -0.5, *places)
    return torch.softmax(scores, -1).to(v.dtype) @ v


def compiled(function, **_settings):
    def called(*args, **kwargs):
        if Now.machine.compiler:
            raise RuntimeError(f"{Now.machine.compiler}\nand more lines")
        return function(*args, **kwargs)

    return called


def forget_peak(_device=None):
    Now.peak_bytes = 0


def disguise():
    """From here on this process has a GPU."""
    gpu = {
        "is_available": lambda: True,
        "is_bf16_supported": lambda including_emulation=True: (
            including_emulation or Now.machine.has_bf16
        ),
        "get_device_properties": lambda _device=None: Properties(),
        "get_device_name": lambda _device=None: NAME,
        "memory_allocated": lambda _device=None: 0,
        "max_memory_allocated": lambda _device=None: Now.peak_bytes,
        "reset_peak_memory_stats": forget_peak,
        "Event": Event,
    }
    # they look for a GPU when they are imported
    import_module("torch._dynamo")
    for name, pretended in gpu.items():
        setattr(torch.cuda, name, pretended)
    torch.autocast, torch.compile = autocast, compiled
    import_module("torch.nn.attention.flex_attention").flex_attention = flex_attention
    # else a module keeps its parameters and exchanges what lies below the disguise
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    # what a GPU copies and multiplies in no time, and a thousand programs of the interpreter
    limits = import_module("vocotrain.bench_kernels.limits")
    limits.COPY_BYTES["cuda"], limits.PRODUCT_SIDE["cuda"] = 2**20, 64
    import_module("vocokernels.cut_crops.kernel").BLOCK = 2**18
    import_module("vocotrain.bench_kernels.small_jobs").model_size = lambda _name: Size()


TINY = ("--quick", "--size", "tiny", "--crop", "16", "--stage", "2", "--repeats", "1")
ATTENTION = "attention alone"
SCENARIOS = {
    "everything": (Machine(), (*TINY, "--maps", "1", "--compile", "--json")),
    # a score for each pair of four maps does not fit, one map's do
    "little memory": (Machine(most_bytes=70_000), (*TINY, "--maps", "4", ATTENTION)),
    "hardly any": (Machine(most_bytes=30_000), (*TINY, "--maps", "2", ATTENTION)),
    "none": (Machine(most_bytes=9_000), (*TINY, "--maps", "2", ATTENTION)),
    "old": (
        Machine(has_bf16=False, has_triton=False, compiler="GPU too old"),
        (*TINY, "--maps", "1", "--compile", "--json", ATTENTION),
    ),
}


def play(machine, words):
    """Exit code of `voco bench kernels`, and all that it printed."""
    from vococli.main import main

    running = import_module("vocotrain.bench_kernels.running")
    Now.machine = machine
    import_module("vocokernels.backends")._HAS_TRITON = machine.has_triton
    small_jobs = import_module("vocotrain.bench_kernels.small_jobs").small_jobs
    running.small_jobs = (lambda _settings: []) if ATTENTION in words else small_jobs
    plain = [word for word in words if word != ATTENTION]
    shown, complained = io.StringIO(), io.StringIO()
    with Pretence(), contextlib.redirect_stdout(shown), contextlib.redirect_stderr(complained):
        code = main(["bench", "kernels", *plain])
    return {"code": code, "out": shown.getvalue(), "err": complained.getvalue()}


def play_all(folder):
    disguise()
    for name, (machine, words) in SCENARIOS.items():
        told = play(machine, [*words, "--plot", str(folder / f"{name}.png")])
        (folder / f"{name}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    play_all(Path(sys.argv[1]))
