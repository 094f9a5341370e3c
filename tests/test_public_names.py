"""The names that docs/architecture.md promises to others, on their packages."""

import importlib

import pytest

PUBLIC = {
    "vocodata": ["read_volume", "resample", "build", "open_store", "verify", "find_scans"],
    "vocokernels": [
        "window_attention",
        "voco_loss",
        "crop_similarity",
        "cut_crops",
        "patch_monai",
        "unpatch_monai",
    ],
    "vocotrain": [
        "SwinUNETR",
        "VoCoEncoder",
        "load_weights",
        "pretrain",
        "finetune",
        "predict",
        "load_config",
    ],
}


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package, names in PUBLIC.items() for name in names]
)
def test_a_public_name_is_a_callable_of_its_package(package: str, name: str) -> None:
    assert callable(getattr(importlib.import_module(package), name))


@pytest.mark.parametrize("package", sorted(PUBLIC))
def test_a_name_that_is_not_there_is_told_by_name(package: str) -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = importlib.import_module(package).no_such_name
