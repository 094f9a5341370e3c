"""What the kernels refuse.

KernelError
├── ShapeError                also ValueError: sizes that do not belong together
├── DtypeError                also TypeError: a number type the kernel does not take
├── CropOutsideFieldError     also ValueError: a crop that leaves its field
├── UnknownVariantError      also ValueError: no such variant of the loss
├── UnknownBackendError       also ValueError: no such backend
└── BackendUnavailableError   also RuntimeError: a backend that cannot run here
"""


class KernelError(Exception):
    """Anything that vocokernels refuses."""


class ShapeError(KernelError, ValueError):
    """Tensors or sizes do not belong together."""


class DtypeError(KernelError, TypeError):
    """A tensor has a number type that the kernel does not take."""


class CropOutsideFieldError(KernelError, ValueError):
    """A crop leaves its field."""


class UnknownVariantError(KernelError, ValueError):
    """The name of a variant of the loss is not known."""


class UnknownBackendError(KernelError, ValueError):
    """The name of a backend is not known."""


class BackendUnavailableError(KernelError, RuntimeError):
    """A known backend cannot run here."""
