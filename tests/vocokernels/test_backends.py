from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vocokernels import (
    available_backends,
    crop_similarity,
    cut_crops,
    resolve_backend,
    voco_loss,
    window_attention,
)
from vocokernels.backends import chosen_backend
from vocokernels.errors import (
    BackendUnavailableError,
    DeviceError,
    TransformError,
    UnknownBackendError,
)


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


@pytest.fixture
def nothing_said(monkeypatch, caplog):
    monkeypatch.setattr("vocokernels.backends._said", set())
    monkeypatch.delenv("VOCO_KERNELS", raising=False)
    caplog.set_level("INFO", logger="vocokernels")
    return caplog


# so many scores that auto does not leave the fast path
MANY = (5, 15, 16, 16, 6)


def attend(qkv, backend="auto"):
    table = torch.zeros(27, 1)
    return window_attention(qkv, table, heads=1, window=(2, 2, 2), shift=(0, 0, 0), backend=backend)


def test_what_auto_chose_is_said_once(nothing_said, monkeypatch):
    for _ in range(3):
        attend(torch.zeros(MANY))
    crop_similarity(torch.ones(1, 1, 2), torch.ones(1, 1, 2))
    monkeypatch.setenv("VOCO_KERNELS", "reference")
    attend(torch.zeros(MANY))
    assert [(record.levelname, record.getMessage()) for record in nothing_said.records] == [
        ("INFO", "window_attention runs on backend 'cpu' (auto, tensors on cpu)"),
        ("INFO", "crop_similarity runs on backend 'cpu' (auto, tensors on cpu)"),
        (
            "INFO",
            "window_attention runs on backend 'reference' (VOCO_KERNELS=reference, tensors on cpu)",
        ),
    ]


def test_a_backend_that_was_named_is_not_news(nothing_said):
    attend(torch.zeros(1, 2, 2, 2, 6), backend="cpu")
    assert nothing_said.records == []


def test_a_gpu_without_triton_is_warned_once_with_the_remedy(nothing_said, monkeypatch):
    monkeypatch.setattr("vocokernels.backends._HAS_TRITON", False)
    with FakeTensorMode():
        tensor = torch.empty(1, device="cuda")
        for _ in range(2):
            assert chosen_backend("window_attention", "auto", tensor) == "reference"
    (record,) = nothing_said.records
    assert record.levelname == "WARNING"
    assert "window_attention runs by its plain specification on cuda" in record.getMessage()
    assert "Install voco-toolkit[triton]" in record.getMessage()


def test_sizes_that_gpu_kernels_do_not_take_are_said_to_run_slowly(nothing_said, monkeypatch):
    monkeypatch.setattr("vocokernels.backends._HAS_TRITON", True)
    with FakeTensorMode():
        tensor = torch.empty(1, device="cuda")
        for _ in range(2):
            chosen = chosen_backend("window_attention", "auto", tensor, unfit="triton")
            assert chosen == "reference"
    (record,) = nothing_said.records
    assert record.levelname == "WARNING"
    assert "on cuda:0, which is slow: its kernels do not take these sizes" in record.getMessage()


def test_auto_leaves_the_fast_path_where_a_map_is_small(nothing_said):
    qkv, table = torch.randn(1, 3, 3, 3, 6), torch.randn(27, 1)
    run = partial(window_attention, heads=1, window=(2, 2, 2), shift=(1, 1, 1))
    assert torch.equal(run(qkv, table), run(qkv, table, backend="reference"))
    torch.testing.assert_close(run(qkv, table), run(qkv, table, backend="cpu"))
    assert [record.getMessage() for record in nothing_said.records] == [
        "window_attention runs on backend 'reference' (auto, tensors on cpu)"
    ]


def test_a_named_backend_is_taken_whatever_the_sizes():
    tensor = torch.empty(1)
    assert chosen_backend("window_attention", "cpu", tensor, unfit="cpu") == "cpu"
    assert chosen_backend("window_attention", "auto", tensor, unfit="triton") == "cpu"


def test_a_gpu_that_was_told_to_do_without_is_not_warned(nothing_said, monkeypatch):
    monkeypatch.setattr("vocokernels.backends._HAS_TRITON", False)
    monkeypatch.setenv("VOCO_KERNELS", "reference")
    with FakeTensorMode():
        chosen_backend("window_attention", "auto", torch.empty(1, device="cuda"))
    assert [record.levelname for record in nothing_said.records] == ["INFO"]


VMAPPED = {
    "window_attention": (attend, torch.zeros(3, 1, 2, 2, 2, 6)),
    "window_attention by its reference": (
        partial(attend, backend="reference"),
        torch.zeros(3, 1, 2, 2, 2, 6),
    ),
    "crop_similarity": (
        lambda x: crop_similarity(x, torch.ones(1, 2, 4)),
        torch.ones(3, 1, 2, 4),
    ),
    "voco_loss": (
        lambda x: voco_loss(x, x, torch.ones(1, 2, 4), torch.ones(1, 2, 4), torch.ones(1, 2, 2))[0],
        torch.ones(3, 1, 2, 4),
    ),
    "cut_crops": (
        lambda start: cut_crops(
            torch.zeros(1, 4, 4, 4), start, 2, window_hu_B2=torch.tensor([[0.0, 1.0]])
        ),
        torch.zeros(3, 1, 2, 3, dtype=torch.long),
    ),
}


@pytest.mark.parametrize("name", VMAPPED)
def test_vmap_is_refused_with_a_sentence(name):
    function, argument = VMAPPED[name]
    with pytest.raises(
        TransformError, match=rf"{name.split()[0]} was called under torch.func.vmap"
    ):
        torch.func.vmap(function)(argument)


def test_vmap_is_seen_through_other_transforms_and_in_any_input():
    def loss(table):
        qkv = torch.ones(1, 2, 2, 2, 6)
        return window_attention(qkv, table, heads=1, window=(2, 2, 2), shift=(0, 0, 0)).sum()

    with pytest.raises(TransformError, match="vmap"):
        torch.func.vmap(torch.func.grad(loss))(torch.zeros(3, 27, 1))


# torch's own rules of forward derivatives are still scripts
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_a_forward_mode_derivative_is_refused_and_not_zero():
    qkv = torch.randn(1, 3, 2, 2, 6)
    with pytest.raises(TransformError, match=r"window_attention was called with a forward-mode"):
        torch.func.jvp(partial(attend, backend="cpu"), (qkv,), (qkv,))
    _, tangent = torch.func.jvp(partial(attend, backend="reference"), (qkv,), (qkv,))
    assert tangent.abs().max() > 0


BY_TORCH_FUNC = {
    "window_attention": (partial(attend, backend="cpu"), torch.randn(1, 3, 2, 2, 6)),
    "voco_loss": (
        lambda x: voco_loss(
            x, x.detach(), BASES, BASES, torch.zeros(2, 2, 3), backend="cpu"
        ).total(),
        torch.randn(2, 2, 4),
    ),
}
BASES = torch.randn(2, 3, 4)


@pytest.mark.parametrize("name", BY_TORCH_FUNC)
def test_a_gradient_by_torch_func_is_refused_in_our_words(name):
    function, given = BY_TORCH_FUNC[name]

    def loss(x):
        return function(x).sum()

    words = rf"{name} was called under torch.func.grad.*backend='reference', or backward"
    with pytest.raises(TransformError, match=words):
        torch.func.grad(loss)(given)
    with pytest.raises(TransformError, match=words):
        torch.func.grad(lambda x: torch.func.grad(loss)(x).sum())(given)


def test_torch_func_grad_may_call_attention_on_what_it_does_not_differentiate():
    def loss(x):
        with torch.no_grad():
            frozen = attend(x, backend="cpu")
        return (x * (frozen + attend(x.detach(), backend="cpu")).sum()).sum()

    x = torch.randn(1, 3, 2, 2, 6)
    found = torch.func.grad(loss)(x)
    torch.testing.assert_close(found, (2 * attend(x, backend="cpu").sum()).expand_as(x))


OPERATIONS = {
    "window_attention": (attend, (torch.randn(MANY),)),
    "crop_similarity": (crop_similarity, (torch.randn(2, 2, 4), torch.randn(2, 3, 4))),
    "voco_loss": (
        lambda x, bases: voco_loss(
            x, x.detach(), bases, bases.detach(), torch.zeros(2, 2, 3)
        ).total(),
        (torch.randn(2, 2, 4), torch.randn(2, 3, 4)),
    ),
}


# torch's own tracer makes an instance of the losses' autograd function
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_compiles_whole_forward_and_backward(name, monkeypatch):
    monkeypatch.delenv("VOCO_KERNELS", raising=False)
    function, given = OPERATIONS[name]
    inputs = [one.clone().requires_grad_() for one in given]
    # without the C++ of inductor, which has nothing to do with us
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    expected, out = function(*inputs), compiled(*inputs)
    torch.testing.assert_close(out, expected)
    for ours, theirs in zip(
        torch.autograd.grad(out.sum(), inputs),
        torch.autograd.grad(expected.sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # inductor's own
def test_inductor_takes_the_operation_and_its_neighbours_forward_and_backward(monkeypatch):
    monkeypatch.delenv("VOCO_KERNELS", raising=False)
    linear, table = torch.nn.Linear(4, 6), torch.randn(27, 2, requires_grad=True)
    sizes = {"heads": 2, "window": (2, 2, 2), "shift": (0, 0, 0), "backend": "cpu"}

    def half(x):
        # a gradient that inductor itself goes on with
        return torch.nn.functional.gelu(window_attention(linear(x), 2 * table, **sizes))

    x = torch.randn(2, 3, 2, 2, 4, requires_grad=True)
    out, expected = torch.compile(half, fullgraph=True)(x), half(x)
    torch.testing.assert_close(out, expected)
    wanted = [x, table, *linear.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(out.sum(), wanted),
        torch.autograd.grad(expected.sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_autocast_changes_nothing(name, backend, monkeypatch):
    monkeypatch.setenv("VOCO_KERNELS", backend)
    function, given = OPERATIONS[name]
    inputs = [one.clone().requires_grad_() for one in given]
    expected = function(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        out = function(*inputs)
    assert out.dtype == torch.float32
    assert torch.equal(out, expected)
    for ours, theirs in zip(
        torch.autograd.grad(out.sum(), inputs),
        torch.autograd.grad(expected.sum(), inputs),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def on_two_devices(name):
    here, there = torch.ones(1, 2, 3), torch.ones(1, 2, 3, device="meta")
    if name == "crop_similarity":
        return crop_similarity(here, there)
    if name == "voco_loss":
        return voco_loss(here, here, here, here, torch.ones(1, 2, 2, device="meta"))
    qkv, table, pad = torch.zeros(1, 2, 2, 2, 6), torch.zeros(27, 1), torch.zeros(6, device="meta")
    sizes = {"heads": 1, "window": (2, 2, 2), "shift": (0, 0, 0)}
    return window_attention(qkv, table, pad_qkv=pad, **sizes, backend="cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("window_attention", r"pad_qkv lies on meta and qkv on cpu; .* pad_qkv\.to\('cpu'\)"),
        ("crop_similarity", "bases_BKD lies on meta and x_BND on cpu; expected one device"),
        ("voco_loss", "labels lies on meta and x_student on cpu; expected one device"),
    ],
)
def test_tensors_on_two_devices_are_refused(name, message):
    with pytest.raises(DeviceError, match=message):
        on_two_devices(name)
