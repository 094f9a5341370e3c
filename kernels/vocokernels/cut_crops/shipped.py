"""How cut_crops' kernel is launched, for the static check."""

from vocokernels.cut_crops.kernel import BLOCK, NUM_STAGES, NUM_WARPS, _cut_crops_kernel
from vocokernels.static_gpu import ShippedKernel


def shipped() -> list[ShippedKernel]:
    """One configuration for each type of field."""
    return [
        ShippedKernel(
            name=f"cut_crops {field}",
            fn=_cut_crops_kernel,
            signature={
                "field_ptr": f"*{field}",
                "map_ptr": "*i64",
                "light_ptr": "*fp32",
                "crop_ptr": "*fp32",
                "size_v": "i32",
                "size_w": "i32",
                "crop_voxels": "i32",
                "blocks": "i32",
                "BLOCK": "constexpr",
            },
            constexprs={"BLOCK": BLOCK},
            divisible_by_16=("size_v", "size_w", "crop_voxels", "blocks"),
            num_warps=NUM_WARPS,
            num_stages=NUM_STAGES,
        )
        for field in ("i16", "fp32")
    ]
