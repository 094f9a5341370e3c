"""Which files are one archive: by their endings, or by what they begin with."""

import pytest

from tests.vocodata.packing import pack, write_tar, write_zip
from vocodata.archives.parts import find_parts, find_pieces, first_parts, is_archive_name

FILES = {f"s/{n}.nii.gz": bytes(range(100)) for n in range(4)}


def names(found):
    return [[path.name for path in group] for group in found]


def cut(path, ends, size):
    """A file's bytes in files of their own; the last takes the rest."""
    content = path.read_bytes()
    path.unlink()
    for number, end in enumerate(ends):
        last = number == len(ends) - 1
        part = content[number * size :] if last else content[number * size : (number + 1) * size]
        (path.parent / end).write_bytes(part)


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("a.zip", ["NLST_v188", "NLST_v189", "NLST_v19000"]),
        ("a.zip", ["set.part-aa", "set.part-ab", "set.part-ac"]),
        ("a.zip", ["xaa", "xab", "xac"]),
        ("a.zip", ["a.zip.aa", "a.zip.ab"]),
        ("a.tar", ["a_1", "a_2"]),
        ("a.tar.gz", ["a-01", "a-02"]),
    ],
)
def test_raw_pieces_are_known_by_their_names_and_first_bytes(tmp_path, name, ends):
    (write_zip if name == "a.zip" else write_tar)(tmp_path / name, FILES)
    # A tar says what it is behind its first name.
    cut(tmp_path / name, ends, 600 if name == "a.tar" else 60)
    beside = ["read.me", "notes.txt", "b.nii.gz", "c_1"]
    for other in beside:
        (tmp_path / other).write_bytes(b"PK\x03\x04")
    assert names(find_pieces(tmp_path.iterdir())) == [ends]
    assert first_parts(tmp_path.iterdir()) == [tmp_path / ends[0]]
    assert find_parts(tmp_path / ends[0]) == [
        (tmp_path / ends[0], tuple(tmp_path / end for end in ends))
    ]
    assert find_parts(tmp_path) == []
    for other in beside:
        (tmp_path / other).unlink()
    assert names(parts for _, parts in find_parts(tmp_path)) == [ends]


def test_files_called_alike_are_no_pieces_if_they_are_archives_each_or_none(tmp_path):
    for number in (1, 2):
        write_zip(tmp_path / "x.zip", FILES).rename(tmp_path / f"batch_{number}")
        (tmp_path / f"IM000{number}").write_bytes(bytes(128) + b"DICM")
        write_zip(tmp_path / "x.zip", FILES).rename(tmp_path / f"scan{number}.nii.gz")
    write_zip(tmp_path / "weights.npz", FILES)
    (tmp_path / "weights.png").write_bytes(b"png")
    (tmp_path / "lost_1").symlink_to(tmp_path / "gone")
    (tmp_path / "lost_2").symlink_to(tmp_path / "gone")
    assert find_pieces(tmp_path.iterdir()) == []
    assert first_parts(tmp_path.iterdir()) == []


def test_pieces_that_may_not_be_read_are_taken_for_an_archive_so_that_somebody_says_why(
    tmp_path, monkeypatch
):
    pack(FILES, tmp_path, "pieces")

    def closed(self, _):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(tmp_path), "open", closed)
    assert len(find_pieces(tmp_path.iterdir())[0]) == 4


def test_pieces_of_several_archives_in_one_folder_are_several_archives(tmp_path):
    for name in ("one", "two"):
        pack(FILES, tmp_path / name, "pieces")
        for path in list((tmp_path / name).iterdir()):
            path.rename(tmp_path / f"{name}{path.name[4:]}")
        (tmp_path / name).rmdir()
    write_zip(tmp_path / "whole.zip", FILES)
    found = find_parts(tmp_path)
    assert [(path.name, len(parts)) for path, parts in found] == [
        ("one_v188", 4),
        ("two_v188", 4),
        ("whole.zip", 1),
    ]


def test_of_each_archive_one_file_is_its_root_also_where_the_first_part_is_missing(tmp_path):
    for name in (
        *("a.zip", "b.tar.gz.001", "b.tar.gz.002", "c.zip.000", "c.zip.001"),
        *("d.zip.002", "d.zip.003", "e.z01", "e.z02", "e.zip", "f.z01", "f.z02", "g.7z", "h"),
    ):
        (tmp_path / name).write_bytes(b"x")
    wanted = ["a.zip", "b.tar.gz.001", "c.zip.000", "d.zip.002", "e.zip", "f.z01"]
    assert [path.name for path in first_parts(tmp_path.iterdir())] == wanted


@pytest.mark.parametrize("name", ["a.ZIP", "a.tgz", "a.tar.xz.01", "a.zip.000", "A.Z12"])
def test_endings_of_archives_are_known(name):
    assert is_archive_name(name)


@pytest.mark.parametrize("name", ["a.zipped", "a.001", "a.nii.gz", "zip", "a.tar.1", "a.7z"])
def test_other_endings_are_not(name):
    assert not is_archive_name(name)


def test_a_root_that_is_one_of_the_later_pieces_is_not_the_archive(tmp_path):
    pack(FILES, tmp_path, "pieces")
    later = tmp_path / "NLST_v189"
    assert find_parts(later) == [(later, (later,))]
    (tmp_path / "NLST_v188").unlink()
    assert find_pieces(tmp_path.iterdir()) == []
