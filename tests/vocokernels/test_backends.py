from importlib.util import find_spec
from typing import NamedTuple

import pytest
import torch

from vocokernels import available_backends, resolve_backend, window_attention
from vocokernels.errors import BackendUnavailableError, UnknownBackendError


@pytest.fixture
def elsewhere():
    return torch.empty(1, device="meta")


def test_auto_takes_the_fast_path_of_a_processor(monkeypatch):
    monkeypatch.delenv("VOCO_KERNELS", raising=False)
    assert resolve_backend("auto", torch.zeros(1)) == "cpu"


def test_auto_takes_the_reference_on_other_devices(monkeypatch, elsewhere):
    monkeypatch.delenv("VOCO_KERNELS", raising=False)
    assert resolve_backend("auto", elsewhere) == "reference"


def test_the_switch_is_read_at_each_call(monkeypatch):
    monkeypatch.setenv("VOCO_KERNELS", "reference")
    assert resolve_backend("auto", torch.zeros(1)) == "reference"
    monkeypatch.setenv("VOCO_KERNELS", "")
    assert resolve_backend("auto", torch.zeros(1)) == "cpu"


def test_a_named_backend_outranks_the_switch(monkeypatch):
    monkeypatch.setenv("VOCO_KERNELS", "reference")
    assert resolve_backend("cpu", torch.zeros(1)) == "cpu"


def test_the_switch_reaches_the_operation(monkeypatch):
    qkv, table = torch.zeros(1, 2, 2, 2, 6), torch.zeros(27, 1)
    monkeypatch.setenv("VOCO_KERNELS", "triton")
    with pytest.raises(BackendUnavailableError):
        window_attention(qkv, table, heads=1, window=(2, 2, 2), shift=(0, 0, 0))


def test_an_unknown_backend_is_refused_with_what_there_is():
    with pytest.raises(UnknownBackendError, match=r"'cuda' is unknown; .* here: reference, cpu"):
        resolve_backend("cuda", torch.zeros(1))


def test_gpu_kernels_without_triton_are_refused_with_what_there_is(monkeypatch):
    monkeypatch.setattr("vocokernels.backends._HAS_TRITON", False)
    with pytest.raises(BackendUnavailableError, match=r"triton is missing\..* reference, cpu;"):
        resolve_backend("triton", torch.zeros(1))


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_gpu_kernels_are_refused_on_a_processor_unless_interpreted(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(
        BackendUnavailableError, match=r"takes tensors on a GPU, got one on cpu\. .*INTERPRET=1"
    ):
        resolve_backend("triton", torch.zeros(1))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert resolve_backend("triton", torch.zeros(1)) == "triton"
    assert resolve_backend("auto", torch.zeros(1)) == "cpu"
    assert available_backends() == ("reference", "cpu", "triton")


@pytest.mark.parametrize(("has_triton", "expected"), [(True, "triton"), (False, "reference")])
def test_auto_takes_the_gpu_kernels_on_a_gpu(monkeypatch, has_triton, expected):
    class OnGpu(NamedTuple):
        device = torch.device("cuda", 0)

    monkeypatch.delenv("VOCO_KERNELS", raising=False)
    monkeypatch.setattr("vocokernels.backends._HAS_TRITON", has_triton)
    assert resolve_backend("auto", OnGpu()) == expected
    if has_triton:
        assert resolve_backend("triton", OnGpu()) == "triton"


def test_the_processor_path_is_refused_elsewhere(elsewhere):
    with pytest.raises(BackendUnavailableError, match="takes tensors on the cpu, got one on meta"):
        resolve_backend("cpu", elsewhere)


def test_what_is_available_can_be_resolved():
    for backend in available_backends():
        place = "cuda" if backend == "triton" else "cpu"
        assert resolve_backend(backend, torch.zeros(1, device=place)) == backend
