import copy
import itertools
import math

import numpy as np
import pytest
import torch

from tests.training_store import phantom
from vocodata.geometry import Size
from vocotrain.config import load_config
from vocotrain.data import FieldBatch
from vocotrain.objective import VoCo, position_accuracy
from vocotrain.sizes import ModelSize

MINI = ModelSize(
    name="mini",
    feature_size=4,
    depths=(1, 1),
    heads=(1, 2),
    window=Size(2, 2, 2),
    head_hidden=12,
    head_width=8,
    crop_vox=Size(8, 8, 16),
)
VOLUMES, CROPS, CELLS = 2, 2, 4


def settings(variant, *sets):
    config = load_config(
        "tiny",
        (f"objective.variant={variant}", "objective.grid=[2, 2, 1]", *sets),
        values={"data.store": "s", "out": "o"},
    )
    return config.objective


def make_objective(variant, *sets, seed=0):
    torch.manual_seed(seed)
    return VoCo(MINI, settings(variant, *sets))


def make_batch(seed=0, keep=None):
    random = np.random.default_rng(seed)
    rows = CROPS + CELLS
    starts = np.zeros((VOLUMES, rows, 3), np.int64)
    starts[:, :CROPS, :2] = random.integers(0, 9, (VOLUMES, CROPS, 2))
    starts[:, CROPS:, :2] = [[8 * i, 8 * j] for i, j in itertools.product(range(2), range(2))]
    labels = np.zeros((VOLUMES, CROPS, CELLS), np.float32)
    for b, n in itertools.product(range(VOLUMES), range(CROPS)):
        x, y, _ = starts[b, n] / 8
        labels[b, n] = np.outer([1 - x, x], [1 - y, y]).ravel()
    fields = np.stack([phantom((16, 16, 16), seed + b) for b in range(VOLUMES)])
    return FieldBatch(
        scans=("a/1", "a/2"),
        crop_vox=Size(8, 8, 16),
        field_BXYZ=torch.from_numpy(fields),
        start_BM3=torch.from_numpy(starts),
        window_hu_B2=torch.tensor([[-175.0, 250.0]] * VOLUMES),
        shift_BM=torch.zeros(VOLUMES, rows),
        flip_BM3=torch.zeros(VOLUMES, rows, 3, dtype=torch.bool),
        turns_BM=torch.zeros(VOLUMES, rows, dtype=torch.int64),
        keep_BM=torch.ones(VOLUMES, rows, dtype=torch.bool) if keep is None else keep,
        label_BNK=torch.from_numpy(labels),
    )


# The oracle: one number at a time, in float64, from the encoder's features on.


def projected(weights, features):
    """Linear, batch norm, ReLU, twice; then linear."""
    value = np.asarray(features, np.float64)
    for layer in (0, 1, 2):
        matrix, bias = weights[2 * layer], weights[2 * layer + 1]
        value = np.array([[matrix[o] @ row + bias[o] for o in range(len(bias))] for row in value])
        if layer < 2:
            for column in range(value.shape[1]):
                mean = value[:, column].mean()
                spread = np.mean((value[:, column] - mean) ** 2)
                value[:, column] = (value[:, column] - mean) / math.sqrt(spread + 1e-5)
            value = np.maximum(value, 0)
    return value


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def position_cross_entropy(labels, similarities):
    """Positive and negative part of one volume's loss, as in facts section 4."""
    positive = weight = negative = count = 0.0
    for y, s in zip(np.ravel(labels), np.ravel(similarities), strict=True):
        positive -= y * math.log(1 - abs(y - s) + 1e-6)
        weight += y
        if y == 0:
            negative -= math.log(1 - s + 1e-6)
            count += 1
    return positive / (weight + 1e-6) + negative / (count + 1e-6)


def oracle(student, teacher, labels):
    """The three losses and the position accuracy, from (R, D) embeddings of both heads."""
    first_base = VOLUMES * CROPS

    def crop(heads, b, n):
        return heads[b * CROPS + n]

    def base(heads, b, k):
        return heads[first_base + b * CELLS + k]

    def matrix(crop_heads, b, base_heads, of):
        return [
            [max(cosine(crop(crop_heads, b, n), base(base_heads, of, k)), 0) for k in range(CELLS)]
            for n in range(CROPS)
        ]

    intra = inter = regulariser = hits = 0.0
    for b in range(VOLUMES):
        other = (b + 1) % VOLUMES
        intra += position_cross_entropy(labels[b], matrix(student, b, teacher, b))
        inter += position_cross_entropy(
            matrix(teacher, b, teacher, other), matrix(student, b, student, other)
        )
        pairs = list(itertools.combinations(range(CELLS), 2))
        regulariser += np.mean(
            [max(cosine(base(student, b, i), base(student, b, j)), 0) ** 2 for i, j in pairs]
        )
        for n in range(CROPS):
            raw = [cosine(crop(student, b, n), base(teacher, b, k)) for k in range(CELLS)]
            hits += np.argmax(raw) == np.argmax(labels[b, n])
    return (intra / VOLUMES, inter / VOLUMES, regulariser / VOLUMES, hits / (VOLUMES * CROPS))


def weights_of(head):
    return [p.detach().double().numpy().copy() for p in head.parameters()]


def followed(teacher, student, momentum):
    return [momentum * t + (1 - momentum) * s for t, s in zip(teacher, student, strict=True)]


def as_numbers(output):
    terms = output.terms
    parts = (terms.intra, terms.inter, terms.regulariser, output.position_accuracy)
    return [float(part.detach()) for part in parts]


@pytest.mark.parametrize("variant", ["reference", "voco"])
def test_two_training_steps_equal_a_plain_loop(variant):
    keep = torch.tensor([[True, False, True, True, True, False], [True] * 6])
    objective = make_objective(variant)
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.05)
    teacher = weights_of(objective.teacher)
    for step in range(2):
        batch = make_batch(seed=10 * step, keep=keep)
        with torch.no_grad():
            features = objective.encoder(batch.crop_rows()).double().numpy()
        seen = features.copy()
        student = weights_of(objective.student)
        if variant == "reference":
            rows_kept = np.concatenate([keep[:, :CROPS].ravel(), keep[:, CROPS:].ravel()])
            seen *= rows_kept[:, None] / 0.8
            teacher = followed(teacher, student, 0.9)  # before it is used
        expected = oracle(
            projected(student, seen), projected(teacher, features), batch.label_BNK.numpy()
        )
        output = objective(batch)
        np.testing.assert_allclose(as_numbers(output), expected, rtol=2e-4, atol=2e-5)
        optimizer.zero_grad()
        output.terms.total().backward()
        optimizer.step()
        objective.update_teacher()
        if variant == "voco":
            teacher = followed(teacher, weights_of(objective.student), 0.99)  # after the step
        for ours, theirs in zip(weights_of(objective.teacher), teacher, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_teacher_starts_as_the_student_and_in_the_released_code_does_not():
    ours, released = make_objective("voco"), make_objective("reference")
    for a, b in zip(weights_of(ours.student), weights_of(ours.teacher), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(weights_of(released.student)[0], weights_of(released.teacher)[0])


def test_the_released_teacher_follows_in_the_forward_pass_even_in_evaluation():
    objective = make_objective("reference").eval()
    expected = followed(weights_of(objective.teacher), weights_of(objective.student), 0.9)
    with torch.no_grad():
        objective(make_batch())
    for ours, theirs in zip(weights_of(objective.teacher), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)
    before = weights_of(objective.teacher)
    objective.update_teacher()  # after the step it stays
    np.testing.assert_array_equal(before[0], weights_of(objective.teacher)[0])


def test_gradients_reach_the_encoder_and_the_student_and_never_the_teacher():
    objective = make_objective("voco")
    objective(make_batch()).terms.total().backward()
    for name, parameter in objective.named_parameters():
        has_gradient = parameter.grad is not None
        assert has_gradient != name.startswith("teacher."), name
    assert objective.encoder.swinViT.patch_embed.proj.weight.grad.abs().sum() > 0


def test_dropped_rows_are_whole_crops_and_the_rest_is_scaled():
    keep = torch.ones(VOLUMES, CROPS + CELLS, dtype=torch.bool)
    keep[1, 0] = False
    objective = make_objective("reference")
    features = torch.ones(VOLUMES * (CROPS + CELLS), 3)
    dropped = objective._dropped(features, make_batch(keep=keep))
    assert dropped[2].tolist() == [0, 0, 0]  # b1s0 is row 2
    others = torch.cat([dropped[:2], dropped[3:]])
    assert others.eq(1.25).all()
    for variant in ("reference", "voco"):
        objective = make_objective(variant, "objective.row_dropout=0")
        assert objective._dropped(features, make_batch(keep=keep)) is features


def test_looking_moves_nothing_and_needs_no_chance():
    objective = make_objective("reference")
    before = copy.deepcopy(objective.state_dict())
    state = torch.get_rng_state()
    crops, bases = objective.teacher_embeddings(make_batch())
    assert (crops.shape, bases.shape) == ((2, 2, 8), (2, 4, 8))
    again, _ = objective.teacher_embeddings(make_batch())
    assert torch.equal(crops, again)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_position_accuracy_counts_crops_that_find_their_cell():
    similarity = torch.tensor([[[0.9, 0.1, 0.0], [0.2, 0.1, 0.7]], [[0.1, 0.5, 0.2], [0.0, 0, 1]]])
    labels = torch.tensor([[[0.6, 0.4, 0.0], [0.5, 0.5, 0.0]], [[0.0, 1.0, 0.0], [0.2, 0.8, 0]]])
    assert float(position_accuracy(similarity, labels)) == 0.5
