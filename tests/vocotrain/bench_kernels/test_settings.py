import pytest
import torch

from vocotrain.bench_kernels.settings import resolve_settings
from vocotrain.errors import BenchmarkSettingsError, DeviceUnavailableError


def test_a_processor_gets_little_and_in_single_precision():
    settings = resolve_settings(device="cpu")
    assert (settings.device.type, settings.dtype) == ("cpu", torch.float32)
    assert (settings.sizes, settings.crops_vox, settings.maps) == (("B",), (64,), 1)
    assert not settings.stages


def pretend_gpu(monkeypatch, *, has_bf16):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    # an older one says yes where imitation counts
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or has_bf16,
    )


def test_a_gpu_without_bfloat16_gets_float16(monkeypatch):
    pretend_gpu(monkeypatch, has_bf16=False)
    assert resolve_settings().dtype == torch.float16
    assert resolve_settings(precision="bf16").dtype == torch.bfloat16


def test_a_gpu_gets_everything_in_half_precision(monkeypatch):
    pretend_gpu(monkeypatch, has_bf16=True)
    settings = resolve_settings()
    assert (settings.device.type, settings.dtype) == ("cuda", torch.bfloat16)
    assert (settings.sizes, settings.crops_vox) == (("B", "L", "H"), (64, 96))
    assert settings.maps is None
    quick = resolve_settings(is_quick=True)
    assert (quick.sizes, quick.stages) == (("B",), (3, 4))


def test_what_is_asked_for_is_taken():
    settings = resolve_settings(
        device="cpu",
        precision="bf16",
        sizes=("L",),
        crops_vox=(96,),
        stages=(2,),
        maps=5,
        repeats=9,
    )
    assert (settings.dtype, settings.sizes, settings.crops_vox) == (torch.bfloat16, ("L",), (96,))
    assert (settings.stages, settings.maps, settings.repeats) == ((2,), 5, 9)


def test_an_unknown_precision_is_refused():
    with pytest.raises(BenchmarkSettingsError, match="Precision is 'fp8'; expected auto, fp32,"):
        resolve_settings(device="cpu", precision="fp8")


def test_a_missing_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceUnavailableError, match="sees no GPU here"):
        resolve_settings(device="cuda")
