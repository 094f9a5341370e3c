import pytest
import torch

from vocokernels.errors import ShapeError
from vocokernels.launching import launch


class Kernel:
    """Notes how it was started, as Triton's kernels are."""

    __name__ = "_one_kernel"
    arg_names = ("x_ptr", "n", "BLOCK")

    def __getitem__(self, grid):
        def start(*arguments, **constants):
            self.started = (grid, arguments, constants)

        return start


def test_a_kernel_gets_its_own_constants_and_the_options():
    kernel, x = Kernel(), torch.zeros(3)
    launch(kernel, (2, 1), x, 3, BLOCK=16, ANOTHER=1, num_warps=4, num_stages=2)
    assert kernel.started == ((2, 1), (x, 3), {"BLOCK": 16, "num_warps": 4, "num_stages": 2})


@pytest.mark.parametrize(
    ("grid", "asked", "most"),
    [
        ((2**31,), "2147483648", "2147483647"),
        ((2, 65_536), "2 x 65536", "2147483647 x 65535"),
        ((2, 1, 65_536), "2 x 1 x 65536", "2147483647 x 65535 x 65535"),
    ],
)
def test_more_programs_than_a_gpu_starts_are_refused_with_both_numbers(grid, asked, most):
    words = f"one_kernel was to start {asked} programs; a GPU starts at most {most}. .*reference"
    with pytest.raises(ShapeError, match=words):
        launch(Kernel(), grid, torch.zeros(3))


def test_as_many_programs_as_a_gpu_starts_are_started():
    kernel, grid = Kernel(), (2**31 - 1, 65_535, 65_535)
    launch(kernel, grid, torch.zeros(3))
    assert kernel.started[0] == grid
