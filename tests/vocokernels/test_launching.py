import torch

from vocokernels.launching import launch


class Kernel:
    """Notes how it was started, as Triton's kernels are."""

    arg_names = ("x_ptr", "n", "BLOCK")

    def __getitem__(self, grid):
        def start(*arguments, **constants):
            self.started = (grid, arguments, constants)

        return start


def test_a_kernel_gets_its_own_constants_and_the_options():
    kernel, x = Kernel(), torch.zeros(3)
    launch(kernel, (2, 1), x, 3, BLOCK=16, ANOTHER=1, num_warps=4, num_stages=2)
    assert kernel.started == ((2, 1), (x, 3), {"BLOCK": 16, "num_warps": 4, "num_stages": 2})
