from pathlib import Path

import pytest
import yaml

from vocodata.errors import ManifestError
from vocodata.manifest import load_manifest

ROW = {"name": "btcv", "root": "data", "preset": "abdomen"}


def write(folder, *sources, **document):
    path = folder / "manifest.yaml"
    made = {"version": 1, "sources": list(sources)} | document
    path.write_text(yaml.safe_dump(made, sort_keys=False))
    return path


def faults(path):
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    return str(caught.value)


def test_a_row_is_read_with_its_defaults_and_paths_from_the_manifests_folder(tmp_path):
    (source,) = load_manifest(write(tmp_path, ROW)).sources
    assert source.root == tmp_path / "data"
    assert (source.layout, source.weight, source.expected, source.licence) == (
        "auto",
        1,
        None,
        None,
    )
    elsewhere = ROW | {"root": "/data/x", "layout": "datalist", "scans": "lists/x.json"}
    (source,) = load_manifest(write(tmp_path, elsewhere)).sources
    assert source.root == Path("/data/x")
    assert source.scans == tmp_path / "lists/x.json"


def test_all_words_of_the_design_are_taken(tmp_path):
    row = ROW | {"layout": "msd", "weight": 8, "expected": 30, "licence": "CC-BY-4.0"}
    row |= {"label_names": {1: "liver", 2: "spleen"}}
    (source,) = load_manifest(write(tmp_path, row)).sources
    assert source.label_names == {1: "liver", 2: "spleen"}
    assert source.weight == 8.0


def test_all_faults_are_told_at_once_with_their_keys(tmp_path):
    wrong = {"name": "a", "root": "x", "presett": "chest", "preset": "abdomn", "weight": "8"}
    text = faults(write(tmp_path, wrong, ROW | {"expected": 0, "layout": "nnUNet"}, versoin=1))
    assert "6 faults" in text
    assert "sources[0].presett: unknown key; did you mean 'preset'?" in text
    assert "sources[0].preset: Preset 'abdomn' is not in presets.yaml; did you mean" in text
    assert "sources[0].weight is '8'; expected a number" in text
    assert "sources[1].expected is 0; expected 1 or more" in text
    assert "sources[1].layout: 'nnUNet' is no layout; did you mean 'nnunet'?" in text
    assert "versoin: unknown key; did you mean 'version'?" in text


def test_a_key_like_no_other_lists_what_there_is(tmp_path):
    told = faults(write(tmp_path, ROW, zzz=1))
    assert "unknown key; expected one of version, exclude, sources" in told


def test_two_sources_of_one_name_are_refused_also_across_case(tmp_path):
    text = faults(write(tmp_path, ROW, ROW | {"name": "BTCV", "weight": 0}))
    assert "sources[1].name: 'BTCV' is also the name of sources[0]" in text
    assert "sources[1].weight" in text


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x" * 65])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    assert "sources[0].name" in faults(write(tmp_path, ROW | {"name": name}))


@pytest.mark.parametrize(
    ("root", "told"),
    [
        ("gs://bucket/x", "gs:// is not read; expected s3:// or https://"),
        ("https:///a", "no host in https:///a; expected one"),
        ("s3://me:secret@bucket/a", "an s3:// URL holds no user and no query"),
    ],
)
def test_a_url_that_cannot_be_a_root_is_refused_with_what_to_do(tmp_path, root, told):
    text = faults(write(tmp_path, ROW | {"root": root}))
    assert f"sources[0].root: {told}" in text
    assert "secret" not in text


def test_a_root_that_is_no_text_is_refused(tmp_path):
    text = faults(write(tmp_path, ROW | {"root": 5}))
    assert "sources[0].root: a path or URL is needed, got 5" in text


def test_a_home_folder_of_nobody_is_refused(tmp_path):
    text = faults(write(tmp_path, ROW | {"root": "~nobody-of-that-name/x"}))
    assert "sources[0].root: ~nobody-of-that-name is no home folder" in text


def test_options_of_a_bucket_are_refused_elsewhere(tmp_path):
    text = faults(write(tmp_path, ROW | {"anonymous": True}))
    assert "anonymous and endpoint are for s3:// roots only" in text


@pytest.mark.parametrize("root", ["x.7z", "a/x.RAR"])
def test_archives_of_other_kinds_are_refused_with_what_to_do(tmp_path, root):
    text = faults(write(tmp_path, ROW | {"root": root}))
    assert "sources[0].root: 7z and rar are not read. Unpack it" in text


def test_a_key_of_another_layout_is_refused_rather_than_ignored(tmp_path):
    text = faults(write(tmp_path, ROW | {"images": "*.nii"}))
    assert "images is read with layout 'glob' only; layout is 'auto'" in text
    assert "needs the key scans" in faults(write(tmp_path, ROW | {"layout": "datalist"}))


def test_no_source_and_a_missing_key_are_refused(tmp_path):
    assert "sources" in faults(write(tmp_path))
    assert "sources[0].preset: this key is needed" in faults(
        write(tmp_path, {"name": "a", "root": "x"})
    )


def test_a_key_that_is_missing_says_what_belongs_there(tmp_path):
    told = faults(write(tmp_path, {"name": "a"}))
    assert "sources[0].root: this key is needed; expected the folder, archive or URL" in told
    assert "sources[0].preset: this key is needed; expected one of " in told
    (tmp_path / "m.yaml").write_text("{}")
    told = faults(tmp_path / "m.yaml")
    assert "version: this key is needed; expected version: 1" in told
    assert "sources: this key is needed; expected a list of data sets; `voco data init" in told


def test_a_list_where_a_text_belongs_is_shown_and_not_at_length(tmp_path):
    told = faults(write(tmp_path, ROW | {"name": ["a", "b"], "licence": list(range(99))}))
    assert "sources[0].name is ['a', 'b']; expected a text" in told
    assert "sources[0].licence is [0, 1, 2," in told
    assert max(map(len, told.splitlines())) < 120
    secret = faults(write(tmp_path, ROW | {"root": ["https://me:word@host/a"]}))
    assert "word@" not in secret


def test_a_word_of_a_choice_a_wrong_key_and_a_wrong_name_say_what_is_allowed(tmp_path):
    told = faults(write(tmp_path, ROW | {"names": "x", "label_names": {"a": "b"}}))
    assert "sources[0].names is 'x'; expected 'path' or 'hashed'" in told
    assert "sources[0].label_names.a: this key is 'a'; expected a whole number" in told
    assert "expected letters, digits, '.'" in faults(write(tmp_path, ROW | {"name": "a b"}))


def test_a_tag_that_would_run_code_does_not_run(tmp_path):
    proof = tmp_path / "ran"
    path = tmp_path / "m.yaml"
    path.write_text(f"!!python/object/apply:pathlib.Path.touch [!!python/name:x '{proof}']")
    assert "is not plain YAML" in faults(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "the file is empty; expected keys and values: version and sources"),
        ("[1]", "manifest is [1]; expected keys and values"),
        ("a: [", "is not plain YAML"),
        ("version: 1\nversion: 1", "key 'version' is given twice"),
        ("version: 1\nsources: 3", "sources"),
        ("version: 2\nsources: []", "version is 2; expected 1"),
        ("version: 1\nsources: []", "sources is []; expected a list of at least 1"),
        ("version: 1\n[a]: b\nsources: []", "is not plain YAML"),
        ("version: 1\nsources: &x [*x]", "is not plain YAML: Circular reference"),
        ("[" * 3000, "is not plain YAML: maximum recursion"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, text, match):
    (tmp_path / "m.yaml").write_text(text)
    assert match in faults(tmp_path / "m.yaml")


def test_a_manifest_that_is_not_there_or_no_text_is_refused(tmp_path):
    assert "is not there" in faults(tmp_path / "m.yaml")
    (tmp_path / "m.yaml").write_bytes(b"\xff\xfe\x00")
    told = faults(tmp_path / "m.yaml")
    assert "cannot be read as text" in told
    assert "Save it as UTF-8." in told
    assert "cannot be read (Is a directory); expected a YAML file." in faults(tmp_path)
