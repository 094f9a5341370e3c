"""Crops of CT fields, windowed and augmented on the device where the fields lie."""

import torch
from torch import Tensor

from vocokernels.backends import chosen_backend, has_tangent
from vocokernels.cut_crops.cpu import cut_crops_cpu
from vocokernels.cut_crops.reference import Augmentation, cut_crops_reference
from vocokernels.errors import CropOutsideFieldError, DtypeError, ShapeError

Triple = tuple[int, int, int]


def cut_crops(
    field_BXYZ: Tensor,
    start_BN3: Tensor,
    size_vox: int | Triple,
    *,
    window_hu_B2: Tensor,
    flip_BN3: Tensor | None = None,
    turns_BN: Tensor | None = None,
    shift_BN: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Cut crops out of fields, in the order: window, crop, flip, turn, shift.

    The HU window maps its ends to 0 and 1 and clips; the shift is added last and not clipped.

    Args:
        field_BXYZ: Fields in HU, int16 or float32, one of each volume.
        start_BN3: First voxel of each of N crops in its field. Best kept on the cpu, like the
            other plans: they are looked at before anything is cut.
        size_vox: Size of a crop, one number for a cube.
        window_hu_B2: Lower and upper end of each volume's window, HU.
        flip_BN3: True along each axis to mirror; None for no flips.
        turns_BN: Quarter turns in the x, y plane, x towards y; None for none.
        shift_BN: Added to each crop, in units of the window; None for nothing.
        backend: See `vocokernels.backends`; all give the same bits. Only reference gives a
            gradient or forward-mode derivative, of a float32 field, and is taken where one is
            wanted.

    Returns:
        (B, N, 1, x, y, z) float32, contiguous.

    Raises:
        ShapeError: Sizes that do not belong together, or a turn of an oblong crop.
        DtypeError: A field or plan of another type.
        CropOutsideFieldError: A crop leaves its field.
        UnknownBackendError: No backend has this name.
        BackendUnavailableError: The backend cannot run here.
        TransformError: An input comes from torch.func.vmap.
    """
    size = (size_vox, size_vox, size_vox) if isinstance(size_vox, int) else size_vox
    plan = Augmentation(flip_BN3, turns_BN, shift_BN)
    inputs = (field_BXYZ, start_BN3, window_hu_B2, flip_BN3, turns_BN, shift_BN)
    chosen = chosen_backend("cut_crops", backend, *inputs)
    _check_shapes(field_BXYZ, start_BN3, window_hu_B2, plan)
    _check_types(field_BXYZ, start_BN3, window_hu_B2, plan)
    _check_inside(field_BXYZ, start_BN3, size)
    _check_turns(size, turns_BN)
    if (field_BXYZ.requires_grad and torch.is_grad_enabled()) or has_tangent(field_BXYZ):
        return cut_crops_reference(field_BXYZ, start_BN3, size, window_hu_B2, plan)
    if chosen == "triton":
        # importing a kernel wants triton, which other backends do without
        from vocokernels.cut_crops.kernel import cut_crops_triton

        return cut_crops_triton(field_BXYZ, start_BN3, size, window_hu_B2, plan)
    if chosen == "cpu":
        return cut_crops_cpu(field_BXYZ, start_BN3, size, window_hu_B2, plan)
    return cut_crops_reference(field_BXYZ, start_BN3, size, window_hu_B2, plan)


def _check_shapes(
    field_BXYZ: Tensor, start_BN3: Tensor, window_hu_B2: Tensor, plan: Augmentation
) -> None:
    if field_BXYZ.dim() != 4 or field_BXYZ.numel() == 0:
        message = f"Fields have shape {tuple(field_BXYZ.shape)}; expected (B, X, Y, Z), none 0."
        raise ShapeError(message)
    volumes = field_BXYZ.shape[0]
    if start_BN3.dim() != 3 or (start_BN3.shape[0], start_BN3.shape[2]) != (volumes, 3):
        message = (
            f"Starts have shape {tuple(start_BN3.shape)}; expected ({volumes}, N, 3) for "
            f"{volumes} fields."
        )
        raise ShapeError(message)
    crops = start_BN3.shape[1]
    for name, tensor, expected in (
        ("window_hu_B2", window_hu_B2, (volumes, 2)),
        ("flip_BN3", plan.flip, (volumes, crops, 3)),
        ("turns_BN", plan.turns, (volumes, crops)),
        ("shift_BN", plan.shift, (volumes, crops)),
    ):
        if tensor is not None and tuple(tensor.shape) != expected:
            message = f"{name} has shape {tuple(tensor.shape)}; expected {expected}."
            raise ShapeError(message)


def _check_types(
    field_BXYZ: Tensor, start_BN3: Tensor, window_hu_B2: Tensor, plan: Augmentation
) -> None:
    integers = (torch.int16, torch.int32, torch.int64)
    floats = (torch.float32, torch.float64)
    for name, tensor, allowed in (
        ("field_BXYZ", field_BXYZ, (torch.int16, torch.float32)),
        ("start_BN3", start_BN3, integers),
        ("window_hu_B2", window_hu_B2, floats),
        ("flip_BN3", plan.flip, (torch.bool,)),
        ("turns_BN", plan.turns, integers),
        ("shift_BN", plan.shift, floats),
    ):
        if tensor is not None and tensor.dtype not in allowed:
            names = " or ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
            message = f"{name} is {tensor.dtype}; expected {names}."
            raise DtypeError(message)
    # as it will be computed with; comparisons with NaN are false
    lower, upper = window_hu_B2.float().unbind(1)
    if not bool(((lower < upper) & (upper - lower).isfinite()).all()):
        message = (
            f"A window in {window_hu_B2.tolist()} HU is empty or not finite; expected lower, then "
            "upper end."
        )
        raise ShapeError(message)


def _check_inside(field_BXYZ: Tensor, start_BN3: Tensor, size: tuple[int, ...]) -> None:
    if len(size) != 3 or min(size) < 1:
        message = f"Crops of {tuple(size)} voxels; expected 1 or more along each of three axes."
        raise ShapeError(message)
    field = tuple(field_BXYZ.shape[1:])
    last_start = torch.tensor(
        [f - s for f, s in zip(field, size, strict=True)], device=start_BN3.device
    )
    outside = ((start_BN3 < 0) | (start_BN3 > last_start)).any(-1)
    if bool(outside.any()):
        volume, crop = outside.nonzero()[0].tolist()
        message = (
            f"Crop {crop} of volume {volume} starts at {tuple(start_BN3[volume, crop].tolist())} "
            f"with {size} voxels; the field has {field}. Draw starts from 0 to "
            f"{tuple(last_start.tolist())}."
        )
        raise CropOutsideFieldError(message)


def _check_turns(size: Triple, turns_BN: Tensor | None) -> None:
    if turns_BN is not None and size[0] != size[1] and bool((turns_BN % 2).any()):
        message = (
            f"A crop of {size} voxels cannot make a quarter turn in x, y; expected x = y, or turns "
            "that are even."
        )
        raise ShapeError(message)
