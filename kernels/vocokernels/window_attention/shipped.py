"""How the kernels of window_attention are launched, for the static check."""

from collections.abc import Mapping
from typing import Any

from vocokernels.static_gpu import ShippedKernel
from vocokernels.window_attention.gradients.kernel import _key_kernel, _query_kernel
from vocokernels.window_attention.gradients.table.kernel import (
    _bias_kernel,
    _sink_slope_kernel,
    _table_kernel,
)
from vocokernels.window_attention.kernel import _forward_kernel, _sink_kernel
from vocokernels.window_attention.tiles import SMALL_TILE, Kernel, padded_width, tile_of

_PRODUCTS: Mapping[Kernel, Any] = {
    "forward": _forward_kernel,
    "query": _query_kernel,
    "key": _key_kernel,
    "bias": _bias_kernel,
}
# pointers to numbers of the type of qkv, to whole numbers; all others are to sums
_NUMBERS = ("qkv_ptr", "pad_ptr", "out_ptr", "grad_out_ptr", "grad_qkv_ptr")
_TABLES = (
    "work_ptr",
    "kinds_ptr",
    "boxes_ptr",
    "place_ptr",
    "code_ptr",
    "shares_ptr",
    "inverse_ptr",
)


def shipped() -> list[ShippedKernel]:
    """Every kernel with pads, for all widths; the ways of launching it otherwise for some."""
    kernels = [
        _product(kernel, dtype, width)
        for kernel in _PRODUCTS
        for dtype, widths in (("bf16", (16, 24, 32, 48, 64)), ("fp16", (16, 32, 64)))
        for width in widths
    ]
    kernels += [_product(kernel, "fp32", 64, PRECISION="tf32") for kernel in _PRODUCTS]
    for width in (16, 32, 64):
        kernels += [_product(kernel, "fp32", width) for kernel in _PRODUCTS]
        kernels.append(_product("bias", "bf16", width, ATOMIC=True))
    kernels += [_product(kernel, "bf16", 64, SINK=False) for kernel in ("forward", "query")]
    kernels += [_small("sink", _sink_kernel), _small("sink slope", _sink_slope_kernel)]
    kernels += [
        _small("table", _table_kernel, SINK=sink, ATOMIC=atomic)
        for sink, atomic in ((True, False), (False, False), (True, True))
    ]
    return kernels


def _product(kernel: Kernel, dtype: str, width: int, **differently: bool | str) -> ShippedKernel:
    tile = tile_of(kernel, 4 if dtype == "fp32" else 2, width)
    constants = {
        "SCALE": width**-0.5,
        "D": width,
        "DP": padded_width(width),
        "BM": tile.queries,
        "BN": tile.keys,
        "SINK": True,
        "ATOMIC": False,
        "UP": False,
        "DOUBLE": False,
        "PRECISION": "ieee",
    } | differently
    function = _PRODUCTS[kernel]
    return ShippedKernel(
        name=_name(f"{kernel} {dtype} d{width}", differently),
        fn=function,
        signature={name: _type(name, constants, dtype) for name in function.arg_names},
        constexprs={name: constants[name] for name in function.arg_names if name in constants},
        divisible_by_16=("positions",),
        num_warps=tile.warps,
        num_stages=tile.stages,
        matrix_units=dtype != "fp32" or constants["PRECISION"] == "tf32",
    )


def _small(name: str, function: Any, **differently: bool) -> ShippedKernel:  # noqa: ANN401 - a kernel of Triton
    tile = tile_of("bias", 2, 16)
    constants = {"BM": SMALL_TILE.queries, "BN": SMALL_TILE.keys, "DOUBLE": False} | differently
    if function is _table_kernel:
        constants |= {"BI": SMALL_TILE.queries, "BT": SMALL_TILE.keys}
        constants |= {"BM": tile.queries, "BN": tile.keys}
    return ShippedKernel(
        name=_name(name, differently),
        fn=function,
        signature={argument: _type(argument, constants, "bf16") for argument in function.arg_names},
        constexprs={name: constants[name] for name in function.arg_names if name in constants},
        divisible_by_16=("positions",),
        num_warps=SMALL_TILE.warps,
    )


def _name(start: str, differently: Mapping[str, bool | str]) -> str:
    """`window_attention forward bf16 d16`, and what is not as usual: `SINK=False`."""
    return " ".join(["window_attention", start, *(f"{k}={v}" for k, v in differently.items())])


def _type(argument: str, constants: Mapping[str, object], dtype: str) -> str:
    if argument in constants:
        return "constexpr"
    if argument in _NUMBERS:
        return f"*{dtype}"
    if argument in _TABLES:
        return "*i32"
    return "*fp32" if argument.endswith("_ptr") else "i32"
