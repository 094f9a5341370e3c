import shutil
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import nibabel
import numpy as np
import pytest
import yaml

from vocodata.building import build
from vocodata.geometry import Size, Spacing
from vocodata.presets import preset
from vocodata.store.catalog import ExcludedRow, write_excluded
from vocotrain.config import load_config
from vocotrain.crops import overlap_labels, random_starts
from vocotrain.errors import CheckpointError
from vocotrain.finetune_config import load_finetune_config
from vocotrain.finetuning import finetune
from vocotrain.position_example import PositionExample
from vocotrain.pretraining import pretrain
from vocotrain.report import duration, pretrain_page, summary, training_seconds, write_report
from vocotrain.report_finetune import finetune_card, fullest_slice
from vocotrain.report_page import Accounting, Figure, Page, render
from vocotrain.report_parts import constant_guess, position_card
from vocotrain.run_record import RunRecord, read_run

HOSTILE = "<script>alert('1')</script>"


class Reader(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def write_scan(folder: Path, name: str, seed: int) -> None:
    """A body in air with two organs, and its labels, as NIfTI at 4 mm."""
    random = np.random.default_rng(seed)
    shape = (56, 52, 20)
    hu, labels = np.full(shape, -1000, np.int16), np.zeros(shape, np.uint8)
    hu[3:-3, 3:-3, 1:-1] = 0
    labels[32:48, 20:40, 6:16], labels[8:18, 12:24, 8:14] = 1, 2
    hu += (labels * 60 + random.normal(0, 8, shape) * (hu > -500)).astype(np.int16)
    for kind, data in (("images", hu), ("labels", labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(data, np.diag([*preset("demo").spacing_mm, 1.0]))
        nibabel.save(image, folder / kind / f"{name}.nii.gz")


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A folder with a store of two scans and a run of two steps on it, one scan held out."""
    folder = tmp_path_factory.mktemp("report")
    for seed, name in enumerate(("00", "01")):
        write_scan(folder / "phantom", name, seed)
    source = {
        "name": "phantom",
        "root": "phantom",
        "layout": "glob",
        "preset": "demo",
        "images": "images/*.nii.gz",
        "labels": "labels/{id}.nii.gz",
        "label_names": {1: "liver", 2: "spleen"},
    }
    manifest = folder / "manifest.yaml"
    manifest.write_text(yaml.safe_dump({"version": 1, "sources": [source]}), encoding="utf-8")
    build(manifest, folder / "ct.zarr", workers=0)
    sets = [
        "data.holdout=[phantom/01]",
        "train.steps=2",
        "train.batch_size=2",
        "train.log_every=1",
        "train.eval_every=1",
        "train.eval_fields=2",
        "optim.warmup_steps=0",
        "threads=1",
    ]
    given = {
        "model.size": "tiny",
        "data.store": str(folder / "ct.zarr"),
        "out": str(folder / "run"),
    }
    pretrain(load_config(None, sets, values=given))
    return folder


@pytest.fixture
def run(original, tmp_path) -> Path:
    """A copy of the run and its store, for a test to change."""
    for name in ("ct.zarr", "run"):
        shutil.copytree(original / name, tmp_path / name)
    config = tmp_path / "run/config.yaml"
    config.write_text(config.read_text().replace(str(original), str(tmp_path)), encoding="utf-8")
    return tmp_path / "run"


def test_a_report_shows_the_scans_the_curves_the_task_and_the_accounting(run):
    path = write_report(run, picture=run / "summary.png")
    assert path == run / "report.html"
    page = Reader(path.read_text(encoding="utf-8"))
    for words in ("held out", "trained on", "Position accuracy", "2 found = 2 in the store"):
        assert words in page.text, words
    assert f"{summary(run)['loss']:.2f}" in page.text
    guess = read_run(run).last("heldout_constant_guess")
    assert f"scans never trained on; a constant guess gets {guess:.2f}" in page.text
    tags = [tag for tag, _ in page.tags]
    assert tags.count("img") == 2 * 3 + 1
    assert tags.count("svg") == 2 + 1
    picture = run / "summary.png"
    assert picture.stat().st_size < 200_000
    assert matplotlib.image.imread(picture).ndim == 3


def test_a_report_needs_no_network_and_every_picture_has_words(run):
    html = write_report(run).read_text(encoding="utf-8")
    page = Reader(html)
    addresses = [
        value for _, attrs in page.tags for key, value in attrs.items() if key in {"src", "href"}
    ]
    assert addresses
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "url(" not in html
    assert "@import" not in html
    for tag, attrs in page.tags:
        if tag == "img":
            assert attrs["alt"]
        if tag == "svg":
            assert attrs.get("aria-label") or attrs.get("aria-hidden") == "true"


def test_a_scan_with_a_hostile_name_is_only_a_name(run):
    store = Path(load_config(run / "config.yaml").data.store)
    write_excluded(store, [ExcludedRow("phantom", HOSTILE, "unreadable", HOSTILE)])
    page = Reader(write_report(run).read_text(encoding="utf-8"))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(HOSTILE) == 2


@pytest.mark.parametrize("place", ["title", "subtitle", "commands", "environment"])
def test_no_word_of_a_page_becomes_markup(place):
    values = {"title": "t", "subtitle": "s", "commands": ["c"], "environment": [("a", "b")]}
    values[place] = {
        "title": HOSTILE,
        "subtitle": HOSTILE,
        "commands": [HOSTILE],
        "environment": [(HOSTILE, HOSTILE)],
    }[place]
    page = Reader(render(Page(figures=[Figure("n", "v")], run=[], **values)))
    assert "script" not in {tag for tag, _ in page.tags}
    assert HOSTILE in page.text


def test_scans_that_are_unaccounted_for_are_said():
    page = Page("t", "s", figures=[], run=[], environment=[], accounting=Accounting(3, 1, []))
    assert "the numbers do not add up" in Reader(render(page)).text


def test_a_report_of_a_run_whose_store_is_gone_says_so(run):
    store = Path(load_config(run / "config.yaml").data.store)
    store.rename(store.with_name("moved"))
    page = pretrain_page(run)
    assert "Without pictures of the scans" in page.notes[0]
    assert page.scans == ()
    assert len(page.charts) == 2


def test_a_folder_that_is_no_run_has_no_report(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.yaml, so it is no run"):
        write_report(tmp_path)


def test_the_command_of_a_report_does_the_run_again(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = pretrain_page(run).commands[0].split()
    recipe, out = words[words.index("--recipe") + 1], words[words.index("--out") + 1]
    again = load_config(recipe, values={"out": out})
    assert again.model_copy(update={"out": str(run)}) == load_config(run / "config.yaml")


def test_fine_tuned_models_are_compared_on_the_held_out_scan(run, tmp_path):
    store = load_config(run / "config.yaml").data.store
    runs = {}
    for name, weights in (("from pretraining", str(run)), ("from scratch", None)):
        out = tmp_path / name.replace(" ", "-")
        given = {"task.name": "demo-organs", "data.store": store, "out": str(out)}
        given |= {"model.weights": weights} if weights else {"model.size": "tiny"}
        sets = [
            "data.holdout=[phantom/01]",
            "train.steps=2",
            "optim.warmup_steps=0",
            "task.roi_vox=[16,16,16]",
            f"task.spacing_mm={list(preset('demo').spacing_mm)}",
            "threads=1",
        ]
        finetune(load_finetune_config(None, sets, values=given))
        runs[name] = out
    card = finetune_card(runs, store)
    assert [row[0] for row in card.rows] == list(runs)
    assert card.holdout == ["phantom/01"]
    assert [panel.name for panel in card.panels] == [
        "label (outline)",
        "from pretraining (filled)",
        "from scratch (filled)",
    ]
    page = Reader(write_report(run, finetune=card).read_text(encoding="utf-8"))
    assert "Fine-tuning: demo-organs" in page.text
    assert f"{card.rows[0][2]:.3f}" in page.text


def test_a_fine_tuning_run_that_has_not_finished_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no results\.json; expected a finished"):
        finetune_card({"a": tmp_path}, tmp_path)


def test_the_slice_shown_holds_the_small_organ_too():
    labels = np.zeros((20, 20, 10), np.uint8)
    labels[:15, :15, 0:6] = 1
    labels[16:18, 16:18, 5] = 2
    assert fullest_slice(labels) == 5
    assert fullest_slice(np.zeros((2, 2, 6), np.uint8)) == 3


def example(crop_start: Size, similarity: list[float]) -> PositionExample:
    """A 2 x 2 grid of 8-voxel cells; the similarity is of cells (0,0), (0,1), (1,0), (1,1)."""
    starts = np.array([[0, 0, 0], [0, 8, 0], [8, 0, 0], [8, 8, 0]])
    return PositionExample(
        scan="a/b",
        is_held_out=True,
        field_XYZ=np.zeros((16, 16, 8), np.int16),
        spacing_mm=Spacing(2.0, 2.0, 2.0),
        window_hu=(-175.0, 250.0),
        crop_vox=Size(8, 8, 8),
        crop_start=crop_start,
        base_start_K3=starts,
        label_K=overlap_labels(np.array([crop_start]), grid=Size(2, 2, 1), crop_vox=Size(8, 8, 8))[
            0
        ],
        similarity_K=np.array(similarity, np.float32),
    )


def test_the_crop_at_the_right_and_front_is_drawn_at_the_top_left():
    card = position_card(example(Size(8, 8, 0), [0.1, 0.2, 0.3, 0.9]))
    assert (card.crop.left, card.crop.top) == (0.0, 0.0)
    assert [round(cell.similarity, 1) for cell in card.cells] == [0.9, 0.2, 0.3, 0.1]
    assert [cell.label for cell in card.cells] == [1.0, 0.0, 0.0, 0.0]
    assert card.columns == 2
    assert "names the cell that the crop overlaps most" in card.sentence


def test_a_wrong_answer_is_shown_as_wrong():
    card = position_card(example(Size(8, 8, 0), [0.9, 0.2, 0.3, 0.1]))
    assert "names another cell" in card.sentence


@pytest.mark.parametrize("grid", [Size(3, 3, 1), Size(2, 2, 1), Size(4, 3, 2), Size(5, 1, 1)])
def test_the_constant_guess_is_what_random_crops_give(grid):
    crop = Size(16, 16, 16)
    uniform = np.random.default_rng(0).random((20_000, 3))
    starts = random_starts(uniform, grid=grid, crop_vox=crop, reach_last=True)
    best = overlap_labels(starts, grid=grid, crop_vox=crop).argmax(axis=1)
    share = np.bincount(best).max() / len(best)
    assert constant_guess(grid) == pytest.approx(share, abs=0.04)


def test_time_is_added_up_over_lines_of_any_length(tmp_path):
    lines = tuple(
        {"step": step, "loss": 1.0, "scans_per_s": rate} for step, rate in ((1, 4.0), (11, 40.0))
    )
    config = load_config(
        "tiny", ["train.batch_size=8"], values={"data.store": "s", "out": str(tmp_path)}
    )
    assert training_seconds(RunRecord(tmp_path, {}, {}, lines), config) == pytest.approx(4.0)
    assert duration(4.0) == "4 s"
