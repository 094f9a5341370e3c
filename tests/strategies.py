"""Hypothesis strategies for geometry: orientations, affines, spacings, volumes, boxes."""

import itertools

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from vocodata.geometry import Box, Size, Spacing, Volume

# Compiled code takes its time at the first call, and a red suite must be red again when repeated.
settings.register_profile("voco", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("voco")

ORIENTATIONS = [
    (axes, signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
"""All 48: voxel axis i runs along world axis axes[i], in the direction signs[i]."""


def affine_of(orientation, spacing_mm, origin_mm=(0, 0, 0), rotation=None):
    """Voxel -> RAS mm of a grid with `spacing_mm` along its own voxel axes."""
    axes, signs = orientation
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel_axis, (world_axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[world_axis, voxel_axis] = sign * spacing_mm[voxel_axis]
    if rotation is not None:
        affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = origin_mm
    return affine


def rotation_of(angles):
    """Rotation by three angles about x, y, z, radians."""
    (a, b, c), matrix = angles, np.eye(3)
    for axis, angle in enumerate((a, b, c)):
        turn = np.eye(3)
        i, j = [(1, 2), (0, 2), (0, 1)][axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


orientations = st.sampled_from(ORIENTATIONS)
lengths_mm = st.floats(0.4, 6.0)
spacings = st.builds(Spacing, lengths_mm, lengths_mm, lengths_mm)
sizes = st.builds(Size, *[st.integers(1, 14)] * 3)
small_rotations = st.builds(rotation_of, st.tuples(*[st.floats(-0.5, 0.5)] * 3))
origins_mm = st.tuples(*[st.floats(-400, 400)] * 3)
affines = st.builds(affine_of, orientations, spacings, origins_mm, small_rotations)


@st.composite
def volumes(draw, dtype=np.int16, affines=affines, sizes=sizes):
    """Noise over the whole range of CT, laid out in memory as a NIfTI or as a C array."""
    size, seed = draw(sizes), draw(st.integers(0, 2**31))
    data = np.random.default_rng(seed).integers(0, 200, size)
    if np.dtype(dtype) == np.int16:
        data = data * 25 - 1024
    order = draw(st.sampled_from("FC"))
    return Volume(np.array(data, dtype=dtype, order=order), draw(affines))


@st.composite
def boxes(draw, size):
    """A box with at least one voxel inside a grid of `size`."""
    start = [draw(st.integers(0, n - 1)) for n in size]
    length = [draw(st.integers(1, n - a)) for n, a in zip(size, start, strict=True)]
    return Box(Size(*start), Size(*length))
