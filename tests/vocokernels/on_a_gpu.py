"""How a GPU checks the claims of interpreted kernels: compiled, in a process of their own."""

import os

DEVICE_SWITCH = "VOCO_CHECK_DEVICE"

# a GPU's powers, roots and divisions are approximate, a few units of the last place each
FLOAT32 = 1e-5 if DEVICE_SWITCH in os.environ else 2e-6

# of torch itself, where the first product of a process is one of a backward pass
WORDS = ("-W", "ignore:Attempting to run cuBLAS:UserWarning")


def environment():
    """Of that process."""
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    # cuBLAS refuses products under deterministic algorithms, which poison memory, without the last
    return {**kept, DEVICE_SWITCH: "cuda", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
