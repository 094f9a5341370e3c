import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import strategies  # noqa: F401 - sets the hypothesis profile
from vocodata.discover import count_faults, find_scans, scan_names
from vocodata.errors import ManifestError
from vocodata.manifest import load_manifest

TRAINING = [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}]


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def touch_dicom(root, *names):
    for name in names:
        touch(root, name)
        (root / name).write_bytes(b"\0" * 128 + b"DICM")


def scans(root, **keys):
    row = {"name": "a", "root": str(root), "preset": "chest"} | keys
    path = root.parent / "manifest.yaml"
    path.write_text(json.dumps({"version": 1, "sources": [row]}))
    return find_scans(load_manifest(path))


def rows(found, root):
    return [
        (
            scan.id,
            scan.image.relative_to(root).as_posix(),
            scan.labels and scan.labels.relative_to(root).as_posix(),
        )
        for scan in found
    ]


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    return made


def test_a_scan_carries_what_its_source_says(root):
    touch(root, "x.nii.gz")
    (scan,) = scans(root, weight=3, licence="CC0-1.0", label_names={"1": "liver"})
    assert (scan.source, scan.name, scan.preset) == ("a", "x", "chest")
    assert (scan.weight, scan.licence, scan.label_names) == (3.0, "CC0-1.0", {1: "liver"})


def test_nnunet_pairs_images_and_labels_by_case(root):
    touch(root, "imagesTr/b_0000.nii.gz", "imagesTr/a_1_0000.nii.gz", "labelsTr/a_1.nii.gz")
    touch(root, "imagesTs/t_0000.nii.gz", "imagesTr/._a_1_0000.nii.gz")
    about = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "all": [1, 2]}}
    (root / "dataset.json").write_text(json.dumps(about))
    for layout in ("nnunet", "auto"):
        found = scans(root, layout=layout)
        assert rows(found, root) == [
            ("a/a_1", "imagesTr/a_1_0000.nii.gz", "labelsTr/a_1.nii.gz"),
            ("a/b", "imagesTr/b_0000.nii.gz", None),
        ]
        assert [scan.label_names for scan in found] == [{1: "liver"}, None]


def test_msd_follows_its_dataset_json(root):
    about = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}}
    about |= {"training": TRAINING, "validation": [{"image": "./imagesTr/b.nii.gz"}]}
    about |= {"test": ["./imagesTs/c.nii.gz"]}
    (root / "dataset.json").write_text(json.dumps(about))
    for layout in ("msd", "auto"):
        found = scans(root, layout=layout)
        assert rows(found, root) == [
            ("a/a", "imagesTr/a.nii.gz", "labelsTr/a.nii.gz"),
            ("a/b", "imagesTr/b.nii.gz", None),
        ]
        assert found[0].label_names == {1: "liver"}


def test_a_datalist_may_name_dicom_folders_and_plain_paths(root, tmp_path):
    listed = {"training": [{"image": "p1/ct", "label": "p1/seg.nii.gz"}], "validation": ["p2.mha"]}
    (tmp_path / "list.json").write_text(json.dumps(listed))
    found = scans(root, layout="datalist", scans="list.json", names="path")
    assert rows(found, root) == [("a/p1-ct", "p1/ct", "p1/seg.nii.gz"), ("a/p2", "p2.mha", None)]


@pytest.mark.parametrize(
    "entry", [{"label": "x"}, 3, {"image": ["a", "b"]}, {"image": "a", "label": ["b"]}]
)
def test_an_entry_that_is_none_is_refused_and_named(root, tmp_path, entry):
    (tmp_path / "list.json").write_text(json.dumps({"training": [*TRAINING, entry]}))
    with pytest.raises(ManifestError, match=r"list.json: training\[1\].* expected an image"):
        scans(root, layout="datalist", scans="list.json")


def test_a_list_that_is_none_is_refused(root, tmp_path):
    keys = {"layout": "datalist", "scans": "list.json"}
    with pytest.raises(ManifestError, match="is not there; layout 'datalist' needs it"):
        scans(root, **keys)
    (tmp_path / "list.json").write_text("{")
    with pytest.raises(ManifestError, match="is not JSON"):
        scans(root, **keys)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ManifestError, match="holds a list; expected an object"):
        scans(root, **keys)
    (tmp_path / "list.json").write_text('{"training": 3}')
    with pytest.raises(ManifestError, match="training is no list"):
        scans(root, **keys)


def test_a_scan_listed_twice_is_refused(root, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps({"training": TRAINING, "validation": TRAINING}))
    with pytest.raises(ManifestError, match="1 scans are listed more than once"):
        scans(root, layout="datalist", scans="list.json")


@pytest.mark.parametrize("keys", [{}, {"names": "hashed"}])
def test_files_that_differ_in_their_ending_only_are_two_scans(root, keys):
    touch(root, "a.nii.gz", "a.nrrd", "b.nii.gz")
    found = scans(root, **keys)
    assert len({scan.id for scan in found}) == 3
    assert {scan.image.name for scan in found} == {"a.nii.gz", "a.nrrd", "b.nii.gz"}


def test_listed_files_that_are_called_alike_are_told_apart_wherever_the_root_lies(tmp_path):
    ids = []
    for place in ("here", "there"):
        root = tmp_path / place / "data"
        names = [f"../p{n}/ct/image.nii.gz" for n in (1, 2)]
        touch(root, "list.json", *names)
        (root / "list.json").write_text(json.dumps({"training": names}))
        found = scans(root, layout="datalist", scans=str(root / "list.json"))
        ids.append([scan.id for scan in found])
    assert len(set(ids[0])) == 2
    assert ids[0] == ids[1]


def test_bids_takes_ct_files_only(root):
    touch(root, "sub-1/ses-1/anat/sub-1_ses-1_ct.nii.gz", "sub-1/ses-1/anat/sub-1_ses-1_ct.json")
    touch(root, "sub-2/ct/sub-2_ct.nii", "sub-2/anat/sub-2_T1w.nii.gz")
    touch(root, "derivatives/x/sub-1_ct.nii.gz")
    expected = ["a/sub-1_ses-1_ct", "a/sub-2_ct"]
    for layout in ("bids", "auto"):
        assert [scan.id for scan in scans(root, layout=layout)] == expected


def test_every_folder_with_dicom_is_a_series(root):
    touch_dicom(root, "p1/ct/1.dcm", "p1/ct/2.dcm", "p2/IM0001", "DICOMDIR", ".cache/x")
    touch(root, "p1/notes.txt", "p3/readme")
    for layout in ("dicom", "auto"):
        assert rows(scans(root, layout=layout, names="path"), root) == [
            ("a/p1-ct", "p1/ct", None),
            ("a/p2", "p2", None),
        ]


def test_a_root_that_is_itself_a_series_is_called_as_its_folder(root):
    touch_dicom(root, "1.dcm")
    assert [scan.id for scan in scans(root, layout="dicom", names="path")] == ["a/data"]


def test_glob_finds_labels_by_template_and_does_not_take_them_for_scans(root):
    touch(root, "p1/ct.nii.gz", "p1/seg.nii.gz", "p2/ct.nii.gz", "p2/seg.nii.gz", "p3/ct.nii.gz")
    found = scans(root, layout="glob", images="**/*.nii.gz", labels="{folder}/seg.nii.gz")
    assert rows(found, root) == [
        ("a/p1-ct", "p1/ct.nii.gz", "p1/seg.nii.gz"),
        ("a/p2-ct", "p2/ct.nii.gz", "p2/seg.nii.gz"),
        ("a/p3-ct", "p3/ct.nii.gz", None),
    ]


def test_the_id_of_a_template_is_what_the_last_star_stands_for(root):
    touch(root, "img/case_7_img.nii.gz", "lab/7.nii.gz", "img/case_8_img.nii.gz")
    found = scans(root, layout="glob", images="img/case_*_img.nii.gz", labels="lab/{id}.nii.gz")
    assert rows(found, root) == [
        ("a/case_7_img", "img/case_7_img.nii.gz", "lab/7.nii.gz"),
        ("a/case_8_img", "img/case_8_img.nii.gz", None),
    ]


def test_glob_takes_dicom_folders_too(root):
    touch_dicom(root, "p1/CT/1", "p2/CT/1")
    found = scans(root, layout="glob", images="*/CT", names="path")
    assert [scan.id for scan in found] == ["a/p1-CT", "a/p2-CT"]


def test_a_template_that_finds_nothing_is_refused(root):
    touch(root, "a.nii.gz")
    with pytest.raises(ManifestError, match=r"no scan has labels at seg/\{id\}"):
        scans(root, layout="glob", labels="seg/{id}.nii.gz")


def test_auto_takes_all_scan_files_but_does_not_guess_which_are_labels(root):
    touch(root, "x/a.nii.gz", "x/b.nrrd", "x/notes.txt", "x/._a.nii.gz")
    assert [scan.id for scan in scans(root)] == ["a/x-a", "a/x-b"]
    touch(root, "x/a_seg.nii.gz")
    with pytest.raises(ManifestError, match=r"x/a_seg.nii.gz looks like labels.*layout: glob"):
        scans(root)


def test_auto_takes_dicom_series_beside_scan_files(root):
    touch(root, "a.nii.gz")
    touch_dicom(root, "a/1", "a/2", "p2/1")
    found = scans(root)
    assert {scan.image.name for scan in found} == {"a.nii.gz", "a", "p2"}
    assert len({scan.id for scan in found}) == 3


def test_auto_takes_a_folder_with_a_files_name_so_that_it_is_accounted_for(root):
    touch(root, "a.nii.gz/part", "b.nii.gz")
    assert [scan.id for scan in scans(root)] == ["a/a", "a/b"]


def test_a_source_of_mr_is_refused(root):
    (root / "dataset.json").write_text(json.dumps({"modality": {"0": "MRI"}, "training": TRAINING}))
    with pytest.raises(ManifestError, match="images are MRI; expected CT"):
        scans(root)
    for told in ("MRI", ["MRI", "CT"]):
        (root / "dataset.json").write_text(json.dumps({"modality": told, "training": TRAINING}))
        with pytest.raises(ManifestError, match="images are MRI; expected CT"):
            scans(root, layout="msd")
    about = {"modality": "Computed Tomography", "training": TRAINING}
    (root / "dataset.json").write_text(json.dumps(about))
    assert len(scans(root)) == 1
    (root / "dataset.json").write_text(json.dumps({"modality": {"0": "MRI"}, "training": TRAINING}))
    with pytest.raises(ManifestError, match="images are MRI; expected CT"):
        scans(root)


def test_sources_without_scans_or_folder_are_told_together(tmp_path):
    (tmp_path / "empty").mkdir()
    rows = [{"name": n, "root": r, "preset": "chest"} for n, r in (("a", "empty"), ("b", "gone"))]
    (tmp_path / "m.yaml").write_text(json.dumps({"version": 1, "sources": rows}))
    with pytest.raises(ManifestError) as caught:
        find_scans(load_manifest(tmp_path / "m.yaml"))
    assert "Source 'a': no scan in" in str(caught.value)
    assert "Source 'b': root" in str(caught.value)
    assert "is not a folder or archive that is there" in str(caught.value)


def test_another_count_is_reported_and_not_fatal(root, caplog):
    touch(root, "x.nii.gz")
    with caplog.at_level(logging.WARNING):
        found = scans(root, expected=30)
    assert len(found) == 1
    assert "Source 'a' holds 1 scans; expected 30. Fetch those" in caplog.text
    manifest = load_manifest(root.parent / "manifest.yaml")
    (fault,) = count_faults(manifest, found)
    assert fault.endswith("missing, or set its expected to 1 if none is.")


def test_more_scans_than_expected_say_what_to_set_and_what_auto_takes(root):
    touch(root, "x.nii.gz", "y.nii.gz")
    found = scans(root, expected=1)
    (fault,) = count_faults(load_manifest(root.parent / "manifest.yaml"), found)
    assert "holds 2 scans; expected 1. Set its expected to 2 if all" in fault
    assert fault.endswith("Layout 'auto' takes scan files and DICOM folders.")
    scans(root, expected=1, layout="glob")
    (fault,) = count_faults(load_manifest(root.parent / "manifest.yaml"), found)
    assert fault.endswith("else correct root or layout.")


@pytest.mark.parametrize("pattern", ["/data/*.nii.gz", "**.nii.gz", ".", "*" * 40])
def test_a_pattern_that_cannot_be_is_refused_with_one_that_can(root, pattern):
    touch(root, "x.nii.gz")
    with pytest.raises(ManifestError, match=r"images is .*expected a pattern below the root"):
        scans(root, layout="glob", images=pattern)


@pytest.mark.parametrize("labels", ["", ".", "sub", "x" * 5000])
def test_labels_that_are_a_folder_or_can_be_no_name_are_no_labels(root, labels):
    touch(root, "x.nii.gz", "sub/y.nii.gz")
    with pytest.raises(ManifestError, match="no scan has labels at"):
        scans(root, layout="glob", images="*.nii.gz", labels=labels)


@pytest.mark.parametrize("item", [{"image": ""}, {"image": "."}, {"image": "x", "label": ""}])
def test_a_listed_scan_without_a_name_is_refused(root, item):
    (root / "dataset.json").write_text(json.dumps({"training": [item]}))
    with pytest.raises(ManifestError, match=r"training\[0\] is .*expected an image"):
        scans(root, layout="msd")


def test_a_list_that_is_a_folder_or_nested_beyond_reading_is_refused(root):
    with pytest.raises(ManifestError, match=r"data cannot be read \(Is a directory\)"):
        scans(root, layout="datalist", scans=str(root))
    (root / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(ManifestError, match=r"dataset.json is not JSON"):
        scans(root, layout="msd")


def test_a_list_with_the_mark_of_windows_and_odd_label_values_is_read(root):
    labels = {"liver": 1, "huge": 70_000, "below": -1, "yes": True, "x": "\u00b2"}
    text = json.dumps({"training": TRAINING, "labels": labels})
    (root / "dataset.json").write_text(text, encoding="utf-8-sig")
    (scan,) = scans(root, layout="msd")
    assert scan.label_names == {1: "liver"}


def test_linked_folders_are_looked_into_once_each_and_loops_end(root):
    outside = root.parent / "outside"
    touch(root, "real/a.nii.gz", ".hidden/h.nii.gz")
    touch(outside, "deep/b.nii.gz")
    touch_dicom(outside, "series/1.dcm")
    (root / "link").symlink_to(outside)
    (root / "again").symlink_to(root / "real")
    (root / "real/loop").symlink_to(root)
    (outside / "loop").symlink_to(outside)
    (root / "self.d").symlink_to(root / "self.d")
    wanted = ["a/link-deep-b", "a/link-series", "a/real-a"]
    assert [scan.id for scan in scans(root, names="path")] == wanted
    files = [scan.id for scan in scans(root, layout="glob", images="**/*.nii.gz")]
    assert files == ["a/link-deep-b", "a/real-a"]
    found = scans(root, layout="dicom", names="path")
    assert [scan.id for scan in found] == ["a/link-series"]


paths = st.lists(st.text("aA.-_/ é\u202e", min_size=1, max_size=8), unique=True, max_size=12)


@given(paths)
def test_names_are_safe_and_distinct_on_any_file_system(paths):
    names = scan_names(paths)
    assert len({name.casefold() for name in names}) == len(paths)
    for name in names:
        assert name == name.strip("./")
        assert set(name) <= set("aA.-_") | set("scan0123456789bdef")


@given(paths, st.randoms())
def test_a_name_does_not_depend_on_the_order_of_the_list(paths, random):
    shuffled = list(paths)
    random.shuffle(shuffled)
    assert dict(zip(paths, scan_names(paths), strict=True)) == dict(
        zip(shuffled, scan_names(shuffled), strict=True)
    )


def test_a_very_long_name_is_cut_and_stays_distinct():
    one, other = scan_names(["x" * 300, "x" * 301])
    assert len(one) < 140
    assert one != other
