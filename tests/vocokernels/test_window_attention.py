import math
import re
import sys
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests.vocokernels.monai_window import monai_window_attention
from vocokernels import window_attention
from vocokernels.errors import BackendUnavailableError, DtypeError, ShapeError
from vocokernels.window_attention.boxes import table_length
from vocokernels.window_attention.cpu import _backward_op, _forward_op

# map, window, shift, heads, channels of a head, maps
CASES = [
    pytest.param((8, 8, 8), (7, 7, 7), (3, 3, 3), 3, 4, 2, id="pads-on-each-axis"),
    pytest.param((14, 14, 14), (7, 7, 7), (3, 3, 3), 1, 16, 1, id="whole-windows-shifted"),
    pytest.param((14, 7, 14), (7, 7, 7), (0, 0, 0), 2, 4, 1, id="whole-windows"),
    pytest.param((16, 16, 16), (7, 7, 7), (3, 3, 3), 1, 4, 1, id="stage-2-of-64"),
    pytest.param((8, 9, 15), (7, 7, 7), (0, 0, 0), 2, 4, 3, id="unshifted-pads"),
    pytest.param((9, 8, 15), (7, 7, 7), (3, 3, 3), 1, 12, 2, id="not-cubic"),
    pytest.param((4, 4, 4), (7, 7, 7), (3, 3, 3), 2, 4, 5, id="smaller-than-window"),
    pytest.param((2, 2, 2), (7, 7, 7), (0, 0, 0), 4, 32, 4, id="stage-5-of-64"),
    pytest.param((1, 1, 1), (7, 7, 7), (3, 3, 3), 2, 4, 3, id="one-token"),
    pytest.param((7, 7, 7), (7, 7, 7), (3, 3, 3), 1, 24, 1, id="exactly-the-window"),
    pytest.param((4, 16, 8), (7, 7, 7), (3, 3, 3), 2, 4, 1, id="small-along-x"),
    pytest.param((16, 4, 8), (7, 7, 7), (3, 3, 3), 2, 4, 1, id="small-along-y"),
    pytest.param((8, 16, 4), (7, 7, 7), (3, 3, 3), 2, 4, 1, id="small-along-z"),
    pytest.param((5, 3, 16), (7, 7, 7), (3, 3, 3), 2, 4, 1, id="small-along-two"),
    pytest.param((12, 12, 12), (4, 4, 4), (2, 2, 2), 3, 4, 2, id="window-4"),
    pytest.param((6, 5, 9), (4, 7, 3), (2, 3, 0), 2, 4, 2, id="window-of-three-sizes"),
    pytest.param((6, 10, 3), (7, 4, 5), (1, 3, 2), 2, 4, 2, id="odd-shifts"),
    pytest.param((5, 7, 6), (2, 2, 2), (1, 1, 1), 2, 4, 2, id="window-2"),
    pytest.param((9, 5, 7), (3, 3, 3), (1, 2, 0), 2, 16, 1, id="window-3"),
    pytest.param((11, 6, 8), (5, 5, 5), (2, 2, 2), 1, 4, 1, id="window-5"),
    pytest.param((8, 13, 7), (6, 6, 6), (3, 3, 3), 1, 4, 1, id="window-6"),
    pytest.param((6, 6, 6), (1, 4, 1), (0, 2, 0), 1, 4, 2, id="window-1"),
    pytest.param((3, 2, 3), (2, 2, 2), (1, 1, 1), 1, 4, 2100, id="thousands-of-maps"),
]


def random_inputs(map_xyz, window, heads, width, maps, *, dtype=torch.float64):
    channels = heads * width
    return [
        torch.randn(maps, *map_xyz, 3 * channels, dtype=torch.float64).to(dtype).requires_grad_(),
        torch.randn(table_length(window), heads, dtype=torch.float64).to(dtype).requires_grad_(),
        torch.randn(3 * channels, dtype=torch.float64).to(dtype).requires_grad_(),
    ]


def value_and_gradients(function, inputs, grad_seed=7, **settings):
    qkv, table, pad = inputs
    out = function(qkv, table, pad_qkv=pad, **settings)
    generator = torch.Generator().manual_seed(grad_seed)
    grad = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    wanted = [tensor for tensor in inputs if tensor is not None]
    grads = torch.autograd.grad(out, wanted, grad, allow_unused=True)
    grads = [torch.zeros_like(t) if g is None else g for t, g in zip(wanted, grads, strict=True)]
    return [out.detach(), *grads]


def assert_same(found, expected, tolerance):
    for name, ours, theirs in zip(("out", "qkv", "table", "pad"), found, expected, strict=False):
        assert torch.isfinite(ours).all(), name
        error = (ours.double() - theirs.double()).norm() / theirs.double().norm().clamp_min(1e-6)
        assert error <= tolerance, f"{name}: relative error {error:.1e}, at most {tolerance:.0e}"


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(("map_xyz", "window", "shift", "heads", "width", "maps"), CASES)
def test_values_and_gradients_are_those_of_monai(
    map_xyz, window, shift, heads, width, maps, backend
):
    inputs = random_inputs(map_xyz, window, heads, width, maps)
    settings = {"heads": heads, "window": window, "shift": shift}
    expected = value_and_gradients(monai_window_attention, inputs, **settings)
    found = value_and_gradients(window_attention, inputs, backend=backend, **settings)
    assert_same(found, expected, 1e-12)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_linear_layer_without_bias_pads_with_zeros(backend):
    inputs = [*random_inputs((5, 4, 9), (4, 3, 4), 2, 4, 2)[:2], None]
    settings = {"heads": 2, "window": (4, 3, 4), "shift": (2, 1, 2)}
    expected = value_and_gradients(monai_window_attention, inputs, **settings)
    assert_same(
        value_and_gradients(window_attention, inputs, backend=backend, **settings), expected, 1e-12
    )


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 2e-6), (torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)],
    ids=str,
)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_lower_precision_stays_close_to_double(dtype, tolerance, backend):
    window = (7, 7, 7)
    inputs = random_inputs((8, 9, 10), window, 2, 16, 2, dtype=dtype)
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    settings = {"heads": 2, "window": window, "shift": (3, 3, 3)}
    expected = value_and_gradients(window_attention, exact, backend="reference", **settings)
    found = value_and_gradients(window_attention, inputs, backend=backend, **settings)
    assert [tensor.dtype for tensor in found] == [dtype] * 4
    assert_same(found, expected, tolerance)


@pytest.mark.parametrize("chunk", [1, 5000, 10**9])
def test_the_size_of_a_chunk_does_not_matter(chunk, monkeypatch):
    inputs = random_inputs((9, 8, 10), (4, 4, 4), 2, 4, 3)
    settings = {"heads": 2, "window": (4, 4, 4), "shift": (2, 2, 2)}
    expected = value_and_gradients(window_attention, inputs, backend="reference", **settings)
    # by its name in sys.modules: in the package, the function hides the module of the same name
    module = sys.modules["vocokernels.window_attention.cpu"]
    monkeypatch.setattr(module, "CHUNK_SCORES", chunk)
    assert_same(
        value_and_gradients(window_attention, inputs, backend="cpu", **settings), expected, 1e-12
    )


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_the_work_with_the_same_result_each_time(threads, monkeypatch):
    inputs = random_inputs((9, 8, 10), (4, 4, 4), 2, 4, 3)
    settings = {"heads": 2, "window": (4, 4, 4), "shift": (2, 2, 2)}
    expected = value_and_gradients(window_attention, inputs, backend="reference", **settings)
    monkeypatch.setattr(sys.modules["vocokernels.window_attention.cpu"], "WORTH_SHARING", 0)
    torch.set_num_threads(threads)
    first, second = (
        value_and_gradients(window_attention, inputs, backend="cpu", **settings) for _ in range(2)
    )
    assert_same(first, expected, 1e-12)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_strides_do_not_matter(backend):
    inputs = random_inputs((6, 5, 9), (4, 4, 4), 2, 4, 2)
    apart = inputs[0].detach().permute(0, 4, 3, 1, 2).contiguous().permute(0, 3, 4, 2, 1)
    table = inputs[1].detach().t().contiguous().t()
    settings = {"heads": 2, "window": (4, 4, 4), "shift": (2, 2, 2), "backend": backend}
    expected = value_and_gradients(window_attention, inputs, **settings)
    strided = [apart.requires_grad_(), table.requires_grad_(), inputs[2]]
    assert_same(value_and_gradients(window_attention, strided, **settings), expected, 1e-13)


def test_a_gradient_with_other_strides_is_read_rightly():
    inputs = random_inputs((6, 5, 9), (4, 4, 4), 2, 4, 2)
    settings = {"heads": 2, "window": (4, 4, 4), "shift": (2, 2, 2)}
    weight = torch.randn(2, 8, 9, 6, 5, dtype=torch.float64).permute(0, 3, 4, 2, 1)
    grads = [
        torch.autograd.grad(
            (window_attention(*inputs[:2], pad_qkv=inputs[2], backend=name, **settings) * weight)
            .permute(0, 4, 1, 2, 3)
            .sum(),
            inputs,
        )
        for name in ("cpu", "reference")
    ]
    assert_same([None, *grads[0]][1:], [None, *grads[1]][1:], 1e-12)


def test_finite_differences_agree():
    inputs = random_inputs((3, 2, 3), (2, 2, 2), 2, 2, 1)

    def run(qkv, table, pad):
        return window_attention(
            qkv, table, heads=2, window=(2, 2, 2), shift=(1, 0, 1), pad_qkv=pad, backend="cpu"
        )

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("with_pad", [True, False])
def test_the_operator_is_registered_soundly(with_pad):
    qkv, table, pad = random_inputs((5, 4, 3), (3, 3, 3), 2, 4, 2, dtype=torch.float32)
    sizes = ([3, 3, 3], [1, 1, 1])
    torch.library.opcheck(_forward_op, (qkv, table, pad if with_pad else None, *sizes))
    grad = torch.randn(2, 5, 4, 3, 8)
    given = (qkv.detach(), table.detach(), pad.detach() if with_pad else None)
    torch.library.opcheck(_backward_op, (grad, *given, *sizes))


@pytest.mark.parametrize("threads", [1, 2])
def test_autocast_keeps_the_scores_in_float32(threads, monkeypatch):
    monkeypatch.setattr(sys.modules["vocokernels.window_attention.cpu"], "WORTH_SHARING", 0)
    torch.set_num_threads(threads)
    inputs = random_inputs((6, 5, 9), (4, 4, 4), 2, 4, 2, dtype=torch.float32)
    settings = {"heads": 2, "window": (4, 4, 4), "shift": (2, 2, 2), "backend": "cpu"}
    plain = value_and_gradients(window_attention, inputs, **settings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = value_and_gradients(window_attention, inputs, **settings)
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_inference_mode_changes_nothing(threads, monkeypatch):
    monkeypatch.setattr(sys.modules["vocokernels.window_attention.cpu"], "WORTH_SHARING", 0)
    torch.set_num_threads(threads)
    qkv, table = torch.randn(1, 5, 5, 5, 6), torch.randn(27, 1)
    run = partial(window_attention, heads=1, window=(2, 2, 2), shift=(1, 1, 1), backend="cpu")
    with torch.inference_mode():
        found = run(qkv, table)
    assert torch.equal(found, run(qkv, table))


def test_gradient_checkpointing_changes_nothing():
    inputs = random_inputs((6, 5, 9), (4, 4, 4), 2, 4, 2)
    settings = {"heads": 2, "window": (4, 4, 4), "shift": (2, 2, 2), "backend": "cpu"}

    def checkpointed(qkv, table, **named):
        return checkpoint(
            lambda a, b: window_attention(a, b, **named), qkv, table, use_reentrant=False
        )

    plain = value_and_gradients(window_attention, inputs, **settings)
    saved = value_and_gradients(checkpointed, inputs, **settings)
    assert all(torch.equal(a, b) for a, b in zip(plain, saved, strict=True))


def test_tokens_of_another_region_are_not_seen_at_all():
    """MONAI lets them through by e^-100; a logit of 200 shows the difference."""
    qkv = torch.zeros(1, 4, 1, 1, 3, dtype=torch.float64)
    qkv[0, :, 0, 0, 2] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    qkv[0, 3, 0, 0, 0], qkv[0, 0, 0, 0, 1] = 20.0, 10.0
    table = torch.zeros(3, 1, dtype=torch.float64)
    for backend in ("reference", "cpu"):
        out = window_attention(
            qkv, table, heads=1, window=(2, 1, 1), shift=(1, 0, 0), backend=backend
        )
        # windows [1 2] and, of the rolled ends, [3 | 0] apart
        assert out.flatten().tolist() == [1.0, 2.5, 2.5, 4.0]
    monai = monai_window_attention(qkv, table, heads=1, window=(2, 1, 1), shift=(1, 0, 0))
    assert monai[0, 3, 0, 0, 0].item() == pytest.approx(1.0)


def test_one_window_is_textbook_attention():
    qkv = torch.randn(1, 1, 2, 2, 6, dtype=torch.float64)
    table = torch.randn(9, 1, dtype=torch.float64)
    found = window_attention(qkv, table, heads=1, window=(1, 2, 2), shift=(0, 0, 0), backend="cpu")
    places = [(0, 0), (0, 1), (1, 0), (1, 1)]
    for i, (y, z) in enumerate(places):
        weights, values = [], []
        for j, (other_y, other_z) in enumerate(places):
            q, k = qkv.view(4, 6)[i, :2].tolist(), qkv.view(4, 6)[j, 2:4].tolist()
            bias = table[3 * (y - other_y + 1) + z - other_z + 1, 0].item()
            weights.append(math.exp((q[0] * k[0] + q[1] * k[1]) / math.sqrt(2) + bias))
            values.append(qkv.view(4, 6)[j, 4:].tolist())
        for channel in range(2):
            mean = sum(w * v[channel] for w, v in zip(weights, values, strict=True)) / sum(weights)
            assert found.view(4, 2)[i, channel].item() == pytest.approx(mean, rel=1e-12)


def call(**changed):
    given = {
        "qkv": torch.zeros(1, 4, 4, 4, 24),
        "bias_table": torch.zeros(27, 2),
        "heads": 2,
        "window": (2, 2, 2),
        "shift": (1, 1, 1),
    }
    return window_attention(**{**given, **changed})


def test_an_empty_map_is_refused():
    with pytest.raises(ShapeError, match=r"qkv has shape \(1, 4, 0, 4, 24\); expected"):
        call(qkv=torch.zeros(1, 4, 0, 4, 24))


def test_a_flat_batch_is_refused():
    with pytest.raises(ShapeError, match=r"expected \(B, X, Y, Z, 3 \* C\)"):
        call(qkv=torch.zeros(64, 24))


def test_channels_that_heads_do_not_divide_are_refused():
    with pytest.raises(ShapeError, match=r"24 channels; .* a multiple of 15 for 5 heads"):
        call(heads=5)


def test_a_table_of_another_window_is_refused():
    with pytest.raises(ShapeError, match=r"needs \(27, 2\): one row for each offset"):
        call(bias_table=torch.zeros(2197, 2))


def test_a_pad_of_another_width_is_refused():
    with pytest.raises(ShapeError, match=r"pad_qkv has shape \(8,\); expected \(24,\)"):
        call(pad_qkv=torch.zeros(8))


@pytest.mark.parametrize("window", [(2, 0, 2), (2, 2), 2], ids=str)
def test_a_window_that_is_none_is_refused(window):
    with pytest.raises(ShapeError, match=rf"window is {re.escape(str(window))}; expected three"):
        call(window=window)


@pytest.mark.parametrize("shift", [(2, 0, 0), (0, -1, 0), (1, 1), 1], ids=str)
def test_a_shift_beyond_the_window_is_refused(shift):
    with pytest.raises(ShapeError, match="at least 0 and less than the window"):
        call(shift=shift)


def test_integers_are_refused():
    with pytest.raises(DtypeError, match=r"bias_table is torch\.int64; expected float16"):
        call(bias_table=torch.zeros(27, 2, dtype=torch.int64))


def test_triton_is_refused_with_what_there_is():
    with pytest.raises(BackendUnavailableError, match="Available here: reference, cpu"):
        call(backend="triton")
