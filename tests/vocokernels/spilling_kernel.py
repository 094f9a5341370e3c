"""A kernel that cannot keep its values in registers, and a twin that can: for test_static_gpu."""

import json
import sys
from dataclasses import asdict

import triton
import triton.language as tl

from vocokernels.static_gpu import TARGETS, ShippedKernel, compile_for


@triton.jit
def _center_kernel(x_ptr, out_ptr, BLOCK: tl.constexpr):
    """Subtract the mean: all of the block lives in registers at once."""
    place = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + place)
    tl.store(out_ptr + place, x - tl.sum(x, 0) / BLOCK)


def of_block(block: int) -> ShippedKernel:
    return ShippedKernel(
        name=f"center {block}",
        fn=_center_kernel,
        signature={"x_ptr": "*fp32", "out_ptr": "*fp32", "BLOCK": "constexpr"},
        constexprs={"BLOCK": block},
        num_warps=1,
    )


if __name__ == "__main__":
    found = {
        str(block): {target: asdict(compile_for(of_block(block), target)) for target in TARGETS}
        for block in (1024, 32768)
    }
    json.dump(found, sys.stdout)
