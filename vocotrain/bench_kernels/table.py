"""The document as a table for people: one line a case and implementation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vocotrain.bench_kernels.timing import MODES

if TYPE_CHECKING:
    from vocotrain.bench_kernels.document import Document, Row

    Found = dict[tuple[str, str, str, str], Row]


def table(document: Document) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and lines.

    `ratio` is the first peer's time over this one's, there and back or, where there is no way back,
    forward; it is empty where that peer has no numbers. A processor has one more of the threads'
    time, a GPU the peak of its memory. `share` is the larger share of what the device copies or
    multiplies in that time.
    """
    found: Found = {
        (row.x_value, row.kernel_provider, row.kernel_operation_mode, row.metric_name): row
        for row in document.rows
    }
    has_memory = any(metric == "memory" for *_, metric in found)
    last = "memory MB" if has_memory else "processor ratio"
    header = (
        "case",
        "provider",
        *(f"{mode} ms" for mode in MODES),
        "spread",
        "ratio",
        last,
        "share",
    )
    lines = []
    for case, provider in dict.fromkeys((case, provider) for case, provider, *_ in found):
        mode = "full" if (case, provider, "full", "speed") in found else "forward"
        row = found[case, provider, mode, "speed"]
        first = _notes(row)["against"]
        times = [found.get((case, provider, one, "speed")) for one in MODES]
        memory = found.get((case, provider, mode, "memory"))
        lines.append(
            (
                case,
                provider,
                *map(_median, times),
                f"{(row.y_value_80 - row.y_value_20) / row.y_value_50:.0%}",
                _ratio(found, (case, mode, "speed"), first, provider),
                _median(memory)
                if has_memory
                else _ratio(found, (case, mode, "processor"), first, provider),
                _share(row),
            )
        )
    return header, lines


def not_timed(document: Document) -> list[tuple[str, str]]:
    """Each implementation without numbers, once for each reason, with cases unless it is in all."""
    cases: dict[tuple[str, str], list[str]] = {}
    for absence in document.absent:
        place = (absence.kernel_provider, absence.reason)
        cases.setdefault(place, []).append(absence.x_value)
    timed = {(row.kernel_provider, row.x_value) for row in document.rows}
    missing = {(absence.kernel_provider, absence.x_value) for absence in document.absent}
    everywhere: dict[str, set[str]] = {}
    for provider, case in timed | missing:
        everywhere.setdefault(provider, set()).add(case)
    return [
        (name, reason if set(found) == everywhere[name] else f"{reason} ({', '.join(found)})")
        for (name, reason), found in cases.items()
    ]


def _median(row: Row | None) -> str:
    return "" if row is None else f"{row.y_value_50:.4g}"


def _ratio(found: Found, place: tuple[str, str, str], first: str, provider: str) -> str:
    case, mode, metric = place
    theirs = found.get((case, first, mode, metric))
    ours = found.get((case, provider, mode, metric))
    return f"{theirs.y_value_50 / ours.y_value_50:.2f}x" if theirs and ours else ""


def _share(row: Row) -> str:
    notes = _notes(row)
    shares = [notes[key] for key in notes if key.startswith("share_of")]
    return f"{max(shares):.0%}" if shares else ""


def _notes(row: Row) -> dict[str, Any]:
    notes: dict[str, Any] = json.loads(row.extra_benchmark_config_str)
    return notes
