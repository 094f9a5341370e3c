"""How alike crops and base cells are: the cosine of their embeddings."""

from torch import Tensor

from vocokernels.backends import check_no_transform, check_one_device, chosen_backend
from vocokernels.crop_similarity.reference import crop_similarity_reference
from vocokernels.errors import DtypeError, ShapeError


def crop_similarity(x_BND: Tensor, bases_BKD: Tensor, *, backend: str = "auto") -> Tensor:
    """Cosine of each crop and each base of the same volume, as one matrix product.

    Computed in float32 (float64 if either is float64), also under autocast. A zero embedding is
    like nothing: its similarities are 0.

    Args:
        x_BND: Embeddings of crops.
        bases_BKD: Embeddings of bases.
        backend: See `vocokernels.backends`; reference and cpu are the same expression here.

    Returns:
        (B, N, K), from -1 to 1 up to rounding.

    Raises:
        ShapeError: Not three axes, or volumes or channels that differ, or none of something.
        DtypeError: An embedding that is not of floats.
        DeviceError: Tensors on different devices.
        UnknownBackendError: No backend has this name.
        BackendUnavailableError: The backend cannot run here.
        TransformError: An input comes from torch.func.vmap; but for reference, from jvp or grad.

    >>> import torch
    >>> crop_similarity(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]))
    tensor([[[0.6000, 0.8000]]])
    """
    check_embeddings(x_BND, bases_BKD)
    check_one_device(x_BND=x_BND, bases_BKD=bases_BKD)
    if chosen_backend("crop_similarity", backend, x_BND, bases_BKD) == "triton":
        # importing a kernel wants triton, which other backends do without
        from vocokernels.crop_similarity.kernel import crop_similarity_triton

        check_no_transform("crop_similarity", x_BND, bases_BKD)
        return crop_similarity_triton(x_BND, bases_BKD)
    return crop_similarity_reference(x_BND, bases_BKD)


def check_embeddings(x_BND: Tensor, bases_BKD: Tensor) -> None:
    """Refuse embeddings that cannot be compared."""
    x, bases = tuple(x_BND.shape), tuple(bases_BKD.shape)
    three_axes = len(x) == len(bases) == 3
    if not three_axes or x[::2] != bases[::2] or 0 in x + bases:
        message = (
            f"Embeddings of crops {x} and bases {bases} do not belong together; expected "
            "(B, N, D) and (B, K, D), none of them 0."
        )
        raise ShapeError(message)
    for name, tensor in (("crops", x_BND), ("bases", bases_BKD)):
        if not tensor.is_floating_point():
            message = f"Embeddings of {name} are {tensor.dtype}; expected a floating type."
            raise DtypeError(message)
