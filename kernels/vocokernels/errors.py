"""What the kernels refuse.

KernelError
├── ShapeError                also ValueError: sizes that do not belong together
├── DtypeError                also TypeError: a number type the kernel does not take
├── DeviceError               also ValueError: tensors on different devices
├── CropOutsideFieldError     also ValueError: a crop that leaves its field
├── PatchError                also ValueError: a model that cannot be patched
├── TransformError            also RuntimeError: a transform of torch.func that kernels do not take
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


class DeviceError(KernelError, ValueError):
    """Tensors of one operation lie on different devices."""


class CropOutsideFieldError(KernelError, ValueError):
    """A crop leaves its field."""


class PatchError(KernelError, ValueError):
    """A model holds nothing that the kernels could compute, or something that they would not."""


class TransformError(KernelError, RuntimeError):
    """A transform of torch.func that the kernels do not take."""


class UnknownVariantError(KernelError, ValueError):
    """The name of a variant of the loss is not known."""


class UnknownBackendError(KernelError, ValueError):
    """The name of a backend is not known."""


class BackendUnavailableError(KernelError, RuntimeError):
    """A known backend cannot run here."""
