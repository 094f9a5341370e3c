import pytest
import torch

from vocotrain.device import chosen_precision, device_kind
from vocotrain.errors import DeviceUnavailableError

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")


@no_gpu
def test_auto_takes_the_processor_where_there_is_nothing_else():
    assert device_kind("auto") == device_kind("cpu") == "cpu"
    assert chosen_precision("auto", "cpu").name == "fp32"


@no_gpu
def test_a_gpu_that_is_not_there_is_not_silently_replaced():
    with pytest.raises(DeviceUnavailableError, match=r"sees no GPU here; .*Set device=cpu"):
        device_kind("cuda")


def test_fp16_on_the_processor_is_refused():
    with pytest.raises(DeviceUnavailableError, match=r"precision is 'fp16', but the device is the"):
        chosen_precision("fp16", "cpu")


def test_only_fp16_needs_a_scaled_loss():
    assert chosen_precision("fp16", "cuda").is_scaled
    assert not chosen_precision("bf16", "cuda").is_scaled
    assert chosen_precision("bf16", "cpu").is_autocast
    assert not chosen_precision("fp32", "cpu").is_autocast


def test_a_gpu_that_only_imitates_bf16_computes_in_fp16(monkeypatch):
    supported = "torch.cuda.is_bf16_supported"
    monkeypatch.setattr(supported, lambda including_emulation=True: including_emulation)
    assert chosen_precision("auto", "cuda").name == "fp16"
    monkeypatch.setattr(supported, lambda **_: True)
    assert chosen_precision("auto", "cuda").name == "bf16"
