"""Made-up trunks that differ as people do: organs, bones and air at places of their own."""

import nibabel as nib
import numpy as np

from vocodata.geometry import Volume


def body(seed, *, size=(90, 70, 60), spacing_mm=(4.0, 4.0, 5.0), organs=70, noise_hu=12):
    """A trunk with organs drawn by a seed, int16 HU."""
    rng = np.random.default_rng(seed)
    extent = np.array(size) * spacing_mm
    x, y, z = np.meshgrid(
        *[np.arange(n) * s for n, s in zip(size, spacing_mm, strict=True)], indexing="ij"
    )
    mx, my = extent[0] / 2, extent[1] / 2
    wide = 1 + 0.1 * np.sin(z / rng.uniform(40, 90) + rng.uniform(0, 6))
    inside = ((x - mx) / (0.45 * extent[0])) ** 2 + ((y - my) / (0.42 * extent[1])) ** 2 < wide
    hu = np.where(inside, -60.0, -1000.0)
    for _ in range(organs):
        centre = rng.uniform(0.15, 0.85, 3) * extent
        radii = rng.uniform(9, 24, 3)
        apart = [((a - c) / r) ** 2 for a, c, r in zip((x, y, z), centre, radii, strict=True)]
        hu[(sum(apart) < 1) & inside] = rng.choice([-850, 30, 60, 110, 400])
    hu += rng.normal(0, noise_hu, hu.shape)
    return Volume(np.clip(hu, -1024, 3071).astype(np.int16), np.diag([*spacing_mm, 1.0]))


def trunk():
    """HU of a trunk in 4 x 4 x 5 mm: spine, lungs in the upper half, heart left, liver right."""
    data = body(1, organs=0).data_XYZ.copy()
    noise = np.random.default_rng(0).normal(0, 30, data.shape)
    data[20:41, 22:50, 34:], data[49:70, 22:50, 34:] = -850, -850
    for where, hu in (
        (np.s_[40:50, 8:20], 450),
        (np.s_[42:48, 10:18], 100),
        (np.s_[28:52, 26:48, 34:46], 50),
        (np.s_[50:76, 20:50, 14:33], 60),
    ):
        data[where] = hu + noise[where]
    return data


def save_body(folder, name, data_XYZ, spacing_mm=(4, 4, 5)):
    """A NIfTI file of voxels."""
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data_XYZ, np.diag([*spacing_mm, 1.0])), folder / f"{name}.nii")
