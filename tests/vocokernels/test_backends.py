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


def test_a_missing_backend_is_refused_with_what_there_is():
    with pytest.raises(BackendUnavailableError, match=r"'triton' is not in this .* reference, cpu"):
        resolve_backend("triton", torch.zeros(1))


def test_the_processor_path_is_refused_elsewhere(elsewhere):
    with pytest.raises(BackendUnavailableError, match="takes tensors on the cpu, got one on meta"):
        resolve_backend("cpu", elsewhere)


def test_what_is_available_can_be_resolved():
    for backend in available_backends():
        assert resolve_backend(backend, torch.zeros(1)) == backend
