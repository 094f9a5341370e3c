"""Every group of a store is valid OME-Zarr 0.5, says the specification's own checker."""

import json

import pytest
import zarr
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05 import Image, ImageLabel, Labels
from pydantic import ValidationError

from vocodata.building import build
from vocodata.store import open_store

KINDS = {"Image": Image, "Labels": Labels, "ImageLabel": ImageLabel}


def group(root, scan, path=""):
    return zarr.open_group(root / "scans" / scan / path, mode="r")


def kind_of(document):
    """What a group says it is; None for the folders between, which say nothing."""
    ome = document["attributes"].get("ome", {})
    if "image-label" in ome:
        return "ImageLabel"
    if "labels" in ome:
        return "Labels"
    return "Image" if "multiscales" in ome else None


def test_every_group_of_a_store_is_what_it_says(built):
    seen = {}
    for path in built.rglob("zarr.json"):
        document = json.loads(path.read_text())
        if document["node_type"] == "group" and (kind := kind_of(document)):
            read = KINDS[kind].from_zarr(zarr.open_group(path.parent, mode="r"))
            assert read.ome_zarr_version == "0.5"
            seen[kind] = seen.get(kind, 0) + 1
    assert seen == {"Image": 6, "Labels": 5, "ImageLabel": 5}


def test_a_reader_that_is_told_nothing_finds_an_image(built):
    for scan in ("btcv/case0", "abdo/case0"):
        assert isinstance(open_ome_zarr(group(built, scan)), Image)


def test_axes_scale_and_place_are_read_as_they_were_written(built):
    store = open_store(built)
    for scan in store.ids():
        row = store.row(scan)
        (multiscale,) = Image.from_zarr(group(built, scan)).ome_attributes.multiscales
        assert [axis.name for axis in multiscale.axes] == ["z", "y", "x"]
        assert {axis.unit for axis in multiscale.axes} == {"millimeter"}
        scale, translation = multiscale.datasets[0].coordinateTransformations
        assert scale.scale == list(row.spacing_mm[::-1])
        assert translation.translation == [row.affine[11], row.affine[7], row.affine[3]]


def test_labels_name_their_structures_and_their_image(built):
    read = ImageLabel.from_zarr(group(built, "btcv/case2", "labels/structures"))
    label = read.ome_attributes.image_label
    assert label.source.image == "../../"
    assert [(each.label_value, each.name) for each in label.properties] == [(2, "marker")]
    assert Labels.from_zarr(group(built, "btcv/case2", "labels")).label_paths == ["structures"]


@pytest.mark.parametrize("kind", ["uint16", True])
def test_labels_of_either_width_are_labels(make_sources, tmp_path, kind):
    build(make_sources(1, labels=kind), tmp_path / "ct.zarr", workers=0)
    Labels.from_zarr(group(tmp_path / "ct.zarr", "btcv/case0", "labels"))


def test_the_checker_sees_a_fault(built):
    path = built / "scans/btcv/case0/zarr.json"
    document = json.loads(path.read_text())
    dataset = document["attributes"]["ome"]["multiscales"][0]["datasets"][0]
    dataset["coordinateTransformations"][0]["scale"] = [1.0, 1.0]
    path.write_text(json.dumps(document))
    with pytest.raises(ValidationError, match="inconsistent dimensionality"):
        Image.from_zarr(group(built, "btcv/case0"))
