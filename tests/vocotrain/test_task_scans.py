import json

import pytest

from tests.vocodata.bodies import body, save_body
from vocodata.building import build
from vocotrain.errors import ConfigError
from vocotrain.task_scans import find_task_leaks, find_test_scans
from vocotrain.tasks import load_tasks


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names_of(root):
    return {each.task: [scan.id for scan in each.scans] for each in find_test_scans(root)}


def test_a_task_is_found_by_its_name_or_its_source_in_any_case(tmp_path):
    for folder in ("BTCV", "msd-spleen", "Amos", "holiday"):
        touch(tmp_path / folder, "imagesTs/a.nii.gz")
    assert list(names_of(tmp_path)) == ["btcv", "amos22", "msd-spleen"]


def test_test_scans_are_those_that_the_folder_says(tmp_path):
    spleen = tmp_path / "spleen"
    touch(spleen, "imagesTr/a.nii.gz", "imagesTs/b.nii.gz", "labelsTr/a.nii.gz")
    btcv = tmp_path / "btcv"
    touch(btcv, "img/1.nii.gz", "img/2.nii.gz", "label/1.nii.gz", "label/2.nii.gz")
    training = [{"image": "img/1.nii.gz", "label": "label/1.nii.gz"}]
    validation = [{"image": "img/2.nii.gz", "label": "label/2.nii.gz"}]
    lists = {"training": training, "validation": validation, "test": ["img/9.nii.gz"]}
    (btcv / "dataset_0.json").write_text(json.dumps(lists))
    found = {each.task: each for each in find_test_scans(tmp_path)}
    assert found["msd-spleen"].split == "imagesTs"
    assert [scan.image for scan in found["msd-spleen"].scans] == [spleen / "imagesTs/b.nii.gz"]
    assert found["btcv"].split == "dataset_0.json: test, dataset_0.json: validation"
    wanted = ["btcv/img_9.nii.gz", "btcv/img_2.nii.gz"]
    assert [scan.id for scan in found["btcv"].scans] == wanted


def test_without_a_split_every_scan_is_taken_but_no_label(tmp_path):
    touch(tmp_path / "word", "set/a.nii.gz", "set/b.mha", "masks/a.nii.gz", "labels/b.nii.gz")
    (found,) = find_test_scans(tmp_path)
    assert found.split == "all scans, as no split is given"
    assert [scan.id for scan in found.scans] == ["word/set_a.nii.gz", "word/set_b.mha"]


def test_what_cannot_be_told_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no folder; expected the one that holds the tasks"):
        find_test_scans(tmp_path / "none")
    with pytest.raises(ConfigError, match="is named like a task; expected some such as btcv"):
        find_test_scans(tmp_path)
    (tmp_path / "btcv").mkdir()
    with pytest.raises(ConfigError, match=r"task 'btcv'\) holds no scan"):
        find_test_scans(tmp_path)
    (tmp_path / "btcv/list.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read as a list of scans"):
        find_test_scans(tmp_path)


def test_every_task_of_the_table_can_be_looked_for(tmp_path):
    for name in load_tasks():
        touch(tmp_path / name, "imagesTs/a.nii.gz")
    assert set(names_of(tmp_path)) == set(load_tasks())


def test_leaks_are_told_by_task(tmp_path_factory, tmp_path):
    folder = tmp_path_factory.mktemp("pretrained")
    for seed in range(2):
        save_body(folder / "a", f"s{seed}", body(seed).data_XYZ)
    source = {"name": "a", "root": "a", "preset": "demo", "layout": "glob", "images": "*.nii"}
    (folder / "m.yaml").write_text(json.dumps({"version": 1, "sources": [source]}))
    build(folder / "m.yaml", folder / "a.zarr", workers=0)
    save_body(tmp_path / "btcv/imagesTs", "seen", body(1).data_XYZ[:, ::-1])
    save_body(tmp_path / "word/imagesTs", "new", body(33).data_XYZ)
    found = find_task_leaks(folder / "a.zarr", tmp_path)
    assert found.report.scans == ("a/s1",)
    assert found.leaked("btcv") == ("btcv/seen",)
    assert found.leaked("word") == ()
    assert found.report.checked == 2


def test_lists_of_nnunet_name_files_without_their_number_and_may_begin_with_a_mark(tmp_path):
    btcv = tmp_path / "btcv"
    touch(btcv, "imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "imagesTs/c_0000.nii.gz")
    lists = {"validation": [{"image": "./imagesTr/b.nii.gz"}], "test": ["./imagesTs/c.nii.gz"]}
    (btcv / "dataset.json").write_text(json.dumps(lists), encoding="utf-8-sig")
    (found,) = find_test_scans(tmp_path)
    assert [scan.image.name for scan in found.scans] == ["c_0000.nii.gz", "b_0000.nii.gz"]
