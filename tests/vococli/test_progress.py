import dataclasses
import io

from vococli.progress import BarShower, PlainShower, Progress, Tick
from vocodata.building import BuildEvent
from vocotrain.progress import ProgressEvent


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def plain() -> tuple[PlainShower, Clock, io.StringIO]:
    stream, clock = io.StringIO(), Clock()
    return PlainShower(stream, every_s=5.0, clock=clock), clock, stream


def test_plain_lines_come_at_most_once_every_few_seconds():
    shower, clock, stream = plain()
    for step in range(100):
        clock.now_s = step * 0.1
        shower.tick(Tick("train", step, 1000))
    assert len(stream.getvalue().splitlines()) == 2


def test_the_first_and_the_last_line_are_never_left_out():
    shower, _, stream = plain()
    for step in (1, 2, 3):
        shower.tick(Tick("train", step, 3, "loss 1"))
    assert stream.getvalue().splitlines() == ["train 1/3 loss 1", "train 3/3 loss 1"]


def test_an_excluded_scan_is_always_said():
    shower, _, stream = plain()
    progress = Progress(shower)
    progress.build(BuildEvent("plan", "", 0, 3, 0.0, ""))
    progress.build(BuildEvent("excluded", "toy/c", 1, 3, 1.0, "truncated_gzip: too short"))
    assert "excluded toy/c: truncated_gzip: too short" in stream.getvalue()


def test_a_resumed_build_counts_its_speed_from_where_it_began():
    shower, _, stream = plain()
    progress = Progress(shower)
    progress.build(BuildEvent("plan", "", 8, 10, 0.001, ""))
    progress.build(BuildEvent("stored", "toy/j", 10, 10, 4.0, "", 8_000_000, 3.0))
    assert stream.getvalue().splitlines() == [
        "build 8/10",
        "build 10/10 0.50 scans/s, 2.0 MB/s, slowest toy/j 3.0 s",
    ]


def test_a_build_says_how_fast_it_is_how_long_it_takes_and_what_it_lost():
    shower, clock, stream = plain()
    progress = Progress(shower)
    progress.build(BuildEvent("plan", "", 0, 100, 0.0, "100 of 100 scans to build"))
    progress.build(BuildEvent("note", "", 0, 100, 0.1, "Dask dashboard: http://here"))
    for done, (kind, seconds) in enumerate([("stored", 0.5), ("excluded", 2.5), ("stored", 1.0)]):
        clock.now_s += 6.0
        event = BuildEvent(kind, f"toy/{done}", done + 1, 100, 2.0 * (done + 1), "x: y", 10**6)
        progress.build(dataclasses.replace(event, scan_seconds=seconds))
    assert stream.getvalue().splitlines() == [
        "build 0/100",
        "Dask dashboard: http://here",
        "build 1/100 0.50 scans/s, 0.5 MB/s, 0:03:18 to go, slowest toy/0 0.5 s",
        "excluded toy/1: x: y",
        "build 2/100 0.50 scans/s, 0.5 MB/s, 0:03:16 to go, 1 excluded, slowest toy/1 2.5 s",
        "build 3/100 0.50 scans/s, 0.5 MB/s, 0:03:14 to go, 1 excluded, slowest toy/1 2.5 s",
    ]


def test_a_run_shows_its_main_numbers_and_keeps_quiet_about_checkpoints():
    shower, _, stream = plain()
    progress = Progress(shower)
    progress.train(ProgressEvent("start", 0, 2, {"device": "cpu"}))
    values = {"loss": 0.51234, "intra": 0.4, "position_accuracy": 0.25, "lr": 0.1}
    progress.train(ProgressEvent("train", 1, 2, values))
    progress.train(ProgressEvent("checkpoint", 1, 2, {"path": "x"}))
    progress.train(ProgressEvent("warning", 1, 2, {"message": "It is late."}))
    assert stream.getvalue().splitlines() == [
        "start: device cpu",
        "train 1/2 loss 0.5123  position accuracy 0.25",
        "warning: It is late.",
    ]


def test_bars_show_sentences_as_they_are_and_can_begin_again(capsys):
    shower = BarShower()
    for stage in ("build", "train"):
        shower.tick(Tick(stage, 1, 2, "loss [red]0.5[/red]"))
        shower.say("[bold] stays as it is")
        shower.tick(Tick(stage, 2, 2))
        shower.close()
    shower.say("after")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("[bold] stays as it is") == 2
    assert "train" in shown.err
    assert shown.err.endswith("after\n")


def test_what_is_counted_says_how_fast_and_how_long_it_takes(monkeypatch):
    shower, clock, stream = plain()
    monkeypatch.setattr("vococli.progress.time.monotonic", clock)
    progress = Progress(shower)
    for done, at_s in ((10, 0.0), (30, 10.0), (110, 50.0)):
        clock.now_s = at_s
        progress.count("verify", done, 110)
    assert stream.getvalue().splitlines() == [
        "verify 10/110",
        "verify 30/110 2.0/s, 0:00:40 to go",
        "verify 110/110 2.0/s",
    ]
