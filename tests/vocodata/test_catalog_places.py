"""Sources of a collection are found as they are published: as folders, or as archives of them."""

import pytest

from tests.vocodata.packing import write_tar, write_zip
from tests.vocodata.test_discover import touch
from vocodata.discover import find_scans
from vocodata.manifest import load_manifest
from vocodata.source_catalog import catalog_manifest, load_catalog

ROWS = load_catalog("prect160k")
UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001.1"
# Of each row its folder, and scans and labels in it as the released lists name them. The lists of
# CT-RATE and NLST are not public: what stands here is the form their owners give them.
PUBLISHED = {
    "btcv": ("BTCV", ["imagesTr/img0001"], ["labelsTr/label0001"]),
    "flare22": ("Flare22", ["imagesTr/FLARE22_Tr_0011_0000"], ["labelsTr/FLARE22_Tr_0011"]),
    "amos22": ("Amos2022", ["imagesTr/amos_0001"], []),
    "word": ("WORD", ["imagesTr/word_0002", "imagesVal/word_0001", "imagesTs/word_0014"], []),
    "flare23": (
        "Flare23",
        [
            "imagesTr2200/1-500/FLARE23_0001_0000",
            "unlabelTr1800/unlabelTr2201-3100/FLARE23_3100_0000",
        ],
        [],
    ),
    "lits": ("Dataset003_Liver", ["imagesTr/liver_114_0000"], ["labelsTr/liver_114"]),
    "msd-pancreas": (
        "Dataset007_Pancreas",
        ["imagesTr/pancreas_290_0000"],
        ["labelsTr/pancreas_290"],
    ),
    "kits23": ("Dataset220_KiTS2023", ["imagesTr/case_00000_0000"], ["labelsTr/case_00000"]),
    "healthyct": (
        "HealthyCT/healthy_ct",
        [
            "CT/04_LiTS/img/liver_32",
            "CT/02_TCIA_Pancreas-CT/img/PANCREAS_0001",
            "CT/kidney_ct/08_AbdomenCT-1K_Case_00793_0000",
        ],
        [],
    ),
    "abdomenatlas": ("AbdomenAtlasMini1.0", ["BDMAP_00000001/ct"], ["BDMAP_00000001/label"]),
    "uls23": (
        "DeepLesion",
        [
            "ULS23_DeepLesion3D/images/000010_02_02_100_lesion_01",
            "ULS23_Radboudumc_Pancreas/images/diag_pancreas_2088_lesion_01",
        ],
        [],
    ),
    "panorama": ("PANORAMA", ["images/100000_00001_0000"], ["labels/100000_00001"]),
    "luna16": ("Luna16-jx", [f"subset_0/{UID}"], []),
    "tcia-covid19": ("TCIAcovid19", ["data/volume-covid19-A-0269"], []),
    "stoic21": ("stoic21", ["nii_gz/9994"], []),
    "lidc": ("LIDC_convert_v1", ["00002"], []),
    "stonybrook": ("StonyBrookChestCT_v1", ["00001"], []),
    "mela": ("MELA", ["mela_0001"], []),
    "ct-rate": ("CT-RATE/dataset/train", ["train_1/train_1_a/train_1_a_1"], []),
    "nlst": ("NLST_convert_v1", ["00001"], []),
    "hnscc": ("HNSCC_convert_v1", ["00001"], []),
    "qin-headneck": ("QIN_convert_v1", ["00000"], []),
    "headneck-pet-ct": ("HNPC_convert_v1", ["00000", "00503"], []),
    "tcga-hnsc": ("TCGA-HNSC_convert_v1", ["00012", "01359"], []),
    "totalsegmentator": ("Totalsegmentator_dataset", ["s1405/ct"], []),
    "ct-colonography": ("CT_COLONOGRAPHY_converted_v1", ["00000"], []),
    "opc-radiomics": ("OPC-Radiomics", ["00000"], []),
    "tcia-colon": ("TCIAcolon_v2", ["images/img_3406"], []),
}
UNREAD_LINES = ("#  - ", "#  # ", "#    ")


def published(name):
    """Folder, and files below it with what is in them."""
    folder, scans, labels = PUBLISHED[name]
    return folder, {f"{file}.nii.gz": b"x" for file in (*scans, *labels)}


def found(root, tmp_path):
    """Sources of a collection's manifest, those that no loader reads too, and their scans."""
    text = catalog_manifest("prect160k", root)
    lines = [line[line.startswith(UNREAD_LINES) :] for line in text.splitlines()]
    (tmp_path / "m.yaml").write_text("\n".join(lines))
    manifest = load_manifest(tmp_path / "m.yaml")
    return {source.name: source for source in manifest.sources}, find_scans(manifest), text


def cut(path, *names):
    """A file's bytes in parts of its own, of all of equal size but the last."""
    content = path.read_bytes()
    path.unlink()
    step = -(-len(content) // len(names))
    for number, name in enumerate(names):
        (path.parent / name).write_bytes(content[number * step : (number + 1) * step])


def test_every_row_is_in_the_table_of_published_names():
    assert {name: folder for name, (folder, *_) in PUBLISHED.items()} == {
        name: row.folder for name, row in ROWS.items()
    }


@pytest.mark.parametrize("packed", [None, "its folder", "what is in it"])
@pytest.mark.parametrize("name", ROWS)
def test_what_is_published_is_found_by_its_row_and_no_other(tmp_path, name, packed):
    root, row = tmp_path / "root", ROWS[name]
    folder, files = published(name)
    # A manifest needs a source that the loader reads.
    beside = [] if row.used else ["mela"]
    for other in beside:
        touch(root / published(other)[0], *published(other)[1])
    touch(root / folder, *files)
    unpacked, scans, _ = found(root, tmp_path)
    assert list(unpacked) == [*beside, name]
    source = unpacked[name]
    assert (source.root, source.images) == (root / folder, row.images)
    labels = [scan.labels is not None for scan in scans if scan.source == name]
    assert labels == [bool(PUBLISHED[name][2])] * len(PUBLISHED[name][1])
    if packed is None:
        return
    (root / folder).rename(tmp_path / "away")
    top = f"{(root / folder).name}/" if packed == "its folder" else ""
    write_zip(root / f"{folder}.zip", {f"{top}{file}": data for file, data in files.items()})
    sources, same, text = found(root, tmp_path)
    assert list(sources) == [*beside, name]
    is_moved = row.labels is not None and not row.labels.startswith("{folder}")
    labels = f"{top}{row.labels}" if is_moved else row.labels
    update = {"root": root / f"{folder}.zip", "images": f"{top}{row.images}", "labels": labels}
    assert sources[name] == source.model_copy(update=update)
    assert [scan.id for scan in same] == [scan.id for scan in scans]
    assert "An archive, read in place." in text


@pytest.mark.parametrize("pack", [write_zip, write_tar])
def test_the_parts_that_are_published_are_read_in_place(tmp_path, pack):
    root = tmp_path / "root"
    (root / "NLST").mkdir(parents=True)
    ending = "zip" if pack is write_zip else "tar"
    first = f"StonyBrookChestCT_v1.{ending}.001"
    files = {f"StonyBrookChestCT_v1/{n:05}.nii.gz": bytes(range(250)) for n in range(3)}
    pack(root / f"a.{ending}", files)
    cut(root / f"a.{ending}", first, *(f"{first[:-1]}{n}" for n in (2, 3)))
    pack(root / f"NLST/a.{ending}", {f"NLST_convert_v1/{n}.nii.gz": b"x" * 99 for n in range(5)})
    pieces = [f"NLST_convert_v1{end}" for end in ("88", "89", "9000", "9001")]
    cut(root / f"NLST/a.{ending}", *pieces)
    touch(root, "NLST/README.md", "BTCV/imagesTr/img0001.nii.gz", "BTCV/labelsTr/label0001.nii.gz")
    sources, scans, text = found(root, tmp_path)
    assert list(sources) == ["btcv", "stonybrook", "nlst"]
    stonybrook, nlst = sources["stonybrook"], sources["nlst"]
    assert (stonybrook.root, stonybrook.images) == (root / first, "StonyBrookChestCT_v1/*.nii.gz")
    assert (stonybrook.preset, stonybrook.weight, stonybrook.expected) == ("chest", 1, 2316)
    assert (nlst.root, nlst.images) == (root / "NLST" / pieces[0], "NLST_convert_v1/**/*.nii.gz")
    assert (nlst.expected, nlst.licence) == (84_830, ROWS["nlst"].licence)
    assert [scan.id for scan in scans if scan.source == "nlst"] == [f"nlst/{n}" for n in range(5)]
    assert len(scans) == 9
    assert "  # An archive in 3 parts, read in place.\n" in text
    assert "  # An archive in 4 parts, read in place.\n" in text
    assert f"  # {ROWS['nlst'].note}\n" in text
    assert "#   MELA: MELA, 770 scans" in text


@pytest.mark.parametrize("names", [["MELA.zip"], ["one.zip", "two.zip"]])
def test_a_sources_folder_may_hold_its_archives(tmp_path, names):
    root = tmp_path / "root"
    (root / "MELA").mkdir(parents=True)
    for number, name in enumerate(names):
        write_zip(root / "MELA" / name, {f"mela_{number:04}.nii.gz": b"x"})
    sources, scans, _ = found(root, tmp_path)
    assert sources["mela"].root == root / "MELA"
    assert len(scans) == len(names)


def test_a_sources_folder_may_hold_raw_pieces(tmp_path):
    root = tmp_path / "root"
    (root / "MELA").mkdir(parents=True)
    cut(write_zip(root / "MELA/a.zip", {"mela_0001.nii.gz": b"x"}), "part_1", "part_2")
    sources, scans, _ = found(root, tmp_path)
    assert (sources["mela"].root, len(scans)) == (root / "MELA", 1)


def test_an_archive_of_the_folder_above_is_read_at_the_rows_place_in_it(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    files = {"CT-RATE/dataset/train/a/a_1.nii.gz": b"x", "CT-RATE/dataset/valid/b_1.nii.gz": b"x"}
    write_zip(root / "CT-RATE.zip", files)
    sources, scans, _ = found(root, tmp_path)
    assert sources["ct-rate"].images == "CT-RATE/dataset/train/**/*.nii.gz"
    assert [scan.id for scan in scans] == ["ct-rate/a-a_1"]


def test_an_archive_beside_its_folder_is_said_and_not_read(tmp_path):
    root = tmp_path / "root"
    touch(root / "MELA", "mela_0001.nii.gz")
    (root / "sub").mkdir()
    write_zip(root / "sub/MELA.zip", {"mela_0002.nii.gz": b"x"})
    sources, scans, text = found(root, tmp_path)
    assert (sources["mela"].root, len(scans)) == (root / "MELA", 1)
    assert "  # Also there, and not read: sub/MELA.zip.\n" in text


def test_an_archive_that_cannot_be_listed_is_a_source_and_a_comment(tmp_path):
    root = tmp_path / "root"
    touch(root, "MELA.zip", "WORD.tar.001", "WORD.tar.003")
    lines = catalog_manifest("prect160k", root)
    assert "MELA.zip is neither a folder nor an archive that is read" in lines
    assert "WORD.tar: part 2 is missing of parts 1 to 3" in lines
    assert "images: '**/mela_*.nii.gz'" in lines


def test_an_archive_without_files_that_fit_or_with_more_of_them_says_so(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    write_zip(root / "MELA.zip", {"1.dcm": b"x"})
    write_zip(root / "stoic21.zip", {f"{a}/nii_gz/1.nii.gz": b"x" for a in ("stoic21", "old")})
    text = catalog_manifest("prect160k", root)
    assert "# An archive in which no file fits the pattern: correct it." in text
    assert "# 1 files in other folders of it would fit, and are not read." in text


def test_a_large_compressed_tar_is_not_looked_into(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    write_tar(root / "MELA.tar.gz", {"MELA/mela_0001.nii.gz": b"x"})
    sources, _, _ = found(root, tmp_path)
    assert sources["mela"].images == "MELA/mela_*.nii.gz"
    monkeypatch.setattr("vocodata.catalog_places._MOST_STREAM_BYTES", 10)
    sources, scans, text = found(root, tmp_path)
    assert sources["mela"].images == "**/mela_*.nii.gz"
    assert len(scans) == 1
    assert "# A compressed tar, too large to be looked into" in text


def test_what_no_loader_reads_is_a_comment_that_may_be_taken(tmp_path):
    root = tmp_path / "root"
    touch(root / "MELA", "mela_0001.nii.gz")
    touch(root / "OPC-Radiomics", "00000.nii.gz")
    text = catalog_manifest("prect160k", root)
    assert "# There, but read by no released loader; to take one, take its # away:" in text
    assert "\n#  - name: opc-radiomics\n" in text
    assert list(found(root, tmp_path)[0]) == ["mela", "opc-radiomics"]
    touch(root / "BTCV/imagesTr", "img0001.nii.gz")
    assert "opc-radiomics" not in catalog_manifest("prect160k", root, subset="10k")


def test_names_that_only_begin_alike_are_no_archives_of_a_row(tmp_path):
    root = tmp_path / "root"
    touch(root / "stoic21", "nii_gz/1.nii.gz")
    for name in ("MELA-labels.zip", "oldMELA.zip", "MELA.json.zip"):
        write_zip(root / name, {"mela_0001.nii.gz": b"x"})
    touch(root, "MELA.json", "MELA.zip.md5", "WORD.docx", "WORD.npz", "LIDC_convert_v1.csv")
    assert list(found(root, tmp_path)[0]) == ["stoic21"]
