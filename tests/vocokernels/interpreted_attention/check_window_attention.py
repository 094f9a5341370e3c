"""Claims on the Triton kernels of window attention, run by Triton's interpreter.

`test_window_attention_triton.py` runs this file in a process with TRITON_INTERPRET=1, or on a GPU
with the tiles that are shipped. Memory for results is NaN before the kernels fill it.
"""

from functools import partial

import pytest
import torch

from tests.vocokernels.attention_cases import CASES, SLOW_CASES, TOLERANCES, Case
from vocokernels import window_attention
from vocokernels.backends import available_backends
from vocokernels.errors import BackendUnavailableError, ShapeError
from vocokernels.window_attention import launch
from vocokernels.window_attention.boxes import table_length
from vocokernels.window_attention.gpu import _backward_op, _forward_op
from vocokernels.window_attention.gradients import launch as gradients
from vocokernels.window_attention.plan import pair_work, plan, row_work
from vocokernels.window_attention.tiles import Tile

PLAIN = Case("", (4, 5, 4), (3, 3, 3), (1, 1, 1), 1, 4, 1, "float64")
SINGLE = PLAIN._replace(dtype="float32")
NO_PADS = SINGLE._replace(map_xyz=(6, 3, 3), heads=2)


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    monkeypatch.setattr(
        launch,
        "fresh",
        lambda shape, dtype, device: torch.full(shape, torch.nan, dtype=dtype, device=device),
    )
    if launch.INTERPRETED:
        # a program costs the interpreter more than what it computes
        monkeypatch.setattr(launch, "SMALL_TILE", Tile(64, 512))


def set_tile(monkeypatch, *sides):
    """Another tile for every kernel; a GPU has room for those that are shipped only."""
    if launch.INTERPRETED:
        monkeypatch.setattr(launch, "tile_of", lambda *_: Tile(*sides))


def inputs_of(case):
    """Table, pads and gradient of a case, q, k and v first; each requires its gradient."""
    channels = case.heads * case.width
    dtype = getattr(torch, case.dtype)
    other = torch.float32 if case.mixed else dtype
    qkv = torch.randn(case.maps, *case.map_xyz, 3 * channels, dtype=torch.float64).to(dtype)
    table = torch.randn(table_length(case.window), case.heads, dtype=torch.float64).to(other)
    pad = torch.randn(3 * channels, dtype=torch.float64).to(other)
    grad = torch.randn(case.maps, *case.map_xyz, channels, dtype=torch.float64).to(dtype)
    if case.strided:
        qkv = qkv.permute(4, 0, 3, 1, 2).contiguous().permute(1, 3, 4, 2, 0)
        table, pad = table.t().contiguous().t(), torch.stack([pad, pad], dim=1)[:, 0]
        grad = grad[:1, :1].expand_as(grad)
    wanted = [qkv, table, pad] if case.pad else [qkv, table]
    return [tensor.requires_grad_() for tensor in wanted], grad


def values_and_gradients(case, inputs, grad, backend="triton"):
    out = window_attention(
        *inputs[:2],
        heads=case.heads,
        window=case.window,
        shift=case.shift,
        pad_qkv=inputs[2] if case.pad else None,
        backend=backend,
    )
    # without pads the specification does not touch pad_qkv
    grads = torch.autograd.grad(out, inputs, grad, allow_unused=True)
    grads = [torch.zeros_like(t) if g is None else g for t, g in zip(inputs, grads, strict=True)]
    return [out.detach(), *grads]


def exactly(case, inputs, grad):
    """What the specification gives in float64."""
    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    return values_and_gradients(case, doubles, grad.double(), backend="reference")


def assert_near(found, exact, tolerance):
    # a gradient may be 0 in truth: it is then small beside what flowed in
    floor = 0.05 * max(tensor.norm() for tensor in exact[:1])
    for name, ours, right in zip(("out", "qkv", "table", "pad"), found, exact, strict=False):
        assert torch.isfinite(ours).all(), f"{name} has numbers that nobody wrote"
        assert ours.shape == right.shape, name
        error = ((ours.double() - right).norm() / right.norm().clamp_min(floor)).item()
        assert error <= tolerance, f"{name}: relative error {error:.1e}, at most {tolerance:.0e}"


def check(case, monkeypatch):
    if case.tiles is not None:
        set_tile(monkeypatch, *case.tiles)
    inputs, grad = inputs_of(case)
    found = values_and_gradients(case, inputs, grad)
    assert [tensor.dtype for tensor in found] == [inputs[0].dtype, *(t.dtype for t in inputs)]
    assert_near(found, exactly(case, inputs, grad), TOLERANCES[case.dtype])


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_case(case, monkeypatch):
    check(case, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in SLOW_CASES])
def test_slow_case(case, monkeypatch):
    check(case, monkeypatch)


@pytest.mark.parametrize("case", [PLAIN, SINGLE, NO_PADS], ids=["float64", "float32", "no pads"])
def test_atomics_and_the_fixed_order_agree(case, monkeypatch):
    set_tile(monkeypatch, 32, 32)
    inputs, grad = inputs_of(case)
    ordered = values_and_gradients(case, inputs, grad)
    torch.use_deterministic_algorithms(mode=False)
    fast = values_and_gradients(case, inputs, grad)
    assert_near(fast, [tensor.double() for tensor in ordered], TOLERANCES[case.dtype])


def test_the_fixed_order_gives_the_same_bits_again(monkeypatch):
    set_tile(monkeypatch, 16, 16)
    inputs, grad = inputs_of(SINGLE)
    first, second = (values_and_gradients(SINGLE, inputs, grad) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Noted:
    """Stands for a kernel and notes how it is launched."""

    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        def launched(*given, **named):
            self.launches.append((grid, named))
            self.kernel[grid](*given, **named)

        return launched


def test_the_fixed_order_uses_no_atomics(monkeypatch):
    launches = []
    monkeypatch.setattr(gradients, "_bias_kernel", Noted(gradients._bias_kernel, launches))
    inputs, grad = inputs_of(NO_PADS)
    for ordered in (True, False):
        torch.use_deterministic_algorithms(mode=ordered)
        values_and_gradients(NO_PADS, inputs, grad)
    assert [named["ATOMIC"] for _, named in launches] == [False, True]


def test_programs_lie_in_one_line(monkeypatch):
    """The other axes of a grid end at 65,535: 5,000 maps of 24 heads are 120,000 programs."""
    launches = []
    for module, name in (
        (launch, "_forward_kernel"),
        (gradients, "_query_kernel"),
        (gradients, "_key_kernel"),
        (gradients, "_bias_kernel"),
    ):
        monkeypatch.setattr(module, name, Noted(getattr(module, name), launches))
    inputs, grad = inputs_of(NO_PADS)
    values_and_gradients(NO_PADS, inputs, grad)
    assert len(launches) == 4
    assert all(len(grid) == 1 and grid[0] > 1 for grid, _ in launches)


@pytest.mark.parametrize(
    ("dtype", "allowed", "expected"),
    [
        (torch.float32, False, "ieee"),
        (torch.float32, True, "tf32"),
        (torch.bfloat16, True, "ieee"),
    ],
    ids=str,
)
def test_float32_is_rounded_only_where_torch_may_round_it(dtype, allowed, expected):
    # an object that takes no monkeypatch
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    found = launch._precision(dtype)
    torch.backends.cuda.matmul.allow_tf32 = before
    assert found == expected


def test_a_table_may_forbid_pairs():
    """Its -inf are weights of 0, for keys and for pads, not NaN."""
    (qkv, table, pad), grad = inputs_of(PLAIN)
    forbidden = table.detach().clone()
    # all offsets but those along z with |x| = |y| = 0: whole tiles of keys, whole sinks
    forbidden[torch.arange(len(table)) % 25 // 5 != 2] = -torch.inf
    inputs = [qkv, forbidden.requires_grad_(), pad]
    found = values_and_gradients(PLAIN, inputs, grad)
    exact = values_and_gradients(PLAIN, inputs, grad, backend="reference")
    assert_near(found, exact, 1e-12)


def test_large_logits_do_not_overflow():
    (qkv, table, pad), grad = inputs_of(SINGLE)
    scaled = [(qkv.detach() * 30).requires_grad_(), table, (pad.detach() * 30).requires_grad_()]
    found = values_and_gradients(SINGLE, scaled, grad)
    exact = exactly(SINGLE, scaled, grad)
    assert_near(found[:1], exact[:1], 2e-4)
    assert all(torch.isfinite(tensor).all() for tensor in found)


@pytest.mark.parametrize("pad", [True, False], ids=["pads", "no pads"])
def test_the_operators_are_registered_soundly(pad, monkeypatch):
    set_tile(monkeypatch, 16, 16)
    # of one head, a table and its transpose would have the same strides
    case = SINGLE._replace(map_xyz=(3, 4, 2), heads=2, pad=pad)
    inputs, grad = inputs_of(case)
    given = (*inputs[:2], inputs[2] if pad else None)
    sizes = (list(case.window), list(case.shift))
    torch.library.opcheck(_forward_op, (*given, *sizes))
    saved = [tensor.detach() for tensor in _forward_op(*given, *sizes)]
    plain = [None if tensor is None else tensor.detach() for tensor in given]
    torch.library.opcheck(_backward_op, (grad, *plain, *saved, *sizes))


def test_a_compiled_graph_holds_both_ways(monkeypatch):
    set_tile(monkeypatch, 16, 16)
    case = SINGLE._replace(map_xyz=(3, 4, 2))
    inputs, grad = inputs_of(case)
    expected = values_and_gradients(case, inputs, grad)
    function = torch.compile(
        partial(window_attention, heads=1, window=case.window, shift=case.shift, backend="triton"),
        backend="aot_eager",
        fullgraph=True,
    )
    out = function(*inputs[:2], pad_qkv=inputs[2])
    found = [out.detach(), *torch.autograd.grad(out, inputs, grad)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_second_call_looks_up_what_the_first_worked_out(monkeypatch):
    set_tile(monkeypatch, 32, 32)
    inputs, grad = inputs_of(NO_PADS)
    values_and_gradients(NO_PADS, inputs, grad)
    before = [cached.cache_info().misses for cached in (plan, row_work, pair_work)]
    values_and_gradients(NO_PADS, inputs, grad)
    assert [cached.cache_info().misses for cached in (plan, row_work, pair_work)] == before


def test_nothing_but_inputs_result_and_sums_is_kept():
    kept = []
    inputs, _ = inputs_of(NO_PADS)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        out = window_attention(
            *inputs[:2],
            heads=2,
            window=(3, 3, 3),
            shift=(1, 1, 1),
            pad_qkv=inputs[2],
            backend="triton",
        )
    sums = NO_PADS.heads * out[..., 0].numel()
    assert sorted(kept) == sorted([*(t.numel() for t in inputs), out.numel(), sums])


def test_the_interpreter_is_a_way_to_run_them_on_a_processor():
    assert available_backends() == ("reference", "cpu", "triton")


def test_heads_too_wide_for_the_registers_are_refused():
    with pytest.raises(BackendUnavailableError, match=r"Heads have 65 channels; .* up to 64"):
        window_attention(
            torch.zeros(1, 1, 1, 1, 195),
            torch.zeros(1, 1),
            heads=1,
            window=(1, 1, 1),
            shift=(0, 0, 0),
            backend="triton",
        )


def test_more_programs_than_a_gpu_starts_are_refused():
    # a view, so that it is no matter of memory
    qkv = torch.zeros(1, 1, 1, 1, 1).expand(2**15, 1, 1, 1, 3 * 2**16)
    sizes = (1, 1, 1), (0, 0, 0)
    found = plan((1, 1, 1), *sizes, qkv.device)
    problem = launch.Problem(qkv, qkv, qkv, *sizes, found, 2**16)
    with pytest.raises(ShapeError, match="window_attention was to start 2147483648 programs"):
        problem.grid(problem.rows(16))
