"""The document as a table for people: one line a case and implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vocotrain.bench_kernels.document import Document, Row

HEADER = (
    "case", "provider", "forward ms", "backward ms", "full ms", "spread", "ratio", "processor ratio"
)  # fmt: skip


def table(document: Document) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and lines; `ratio` is the first peer's full time over this one's."""
    firsts: dict[str, str] = {}
    lines = []
    for row in document.rows:
        x, provider = row.x_value, row.kernel_provider
        first = firsts.setdefault(x, provider)
        if (row.kernel_operation_mode, row.metric_name) != ("forward", "speed"):
            continue
        medians = [document.median(x, provider, mode) for mode in ("forward", "backward", "full")]
        whole = "full" if medians[2] else "forward"
        lines.append(
            (
                x,
                provider,
                *map(_number, medians),
                _spread(document, row, whole),
                _ratio(document, row, first, whole, "speed"),
                _ratio(document, row, first, whole, "processor"),
            )
        )
    return HEADER, lines


def not_timed(document: Document) -> list[tuple[str, str]]:
    """Each implementation without numbers, once for each reason."""
    reasons = {(absence.kernel_provider, absence.reason): None for absence in document.absent}
    return list(reasons)


def _spread(document: Document, row: Row, mode: str) -> str:
    """Width of the middle three fifths over the median."""
    for other in document.rows:
        if (other.x_value, other.kernel_provider) == (row.x_value, row.kernel_provider) and (
            other.kernel_operation_mode,
            other.metric_name,
        ) == (mode, "speed"):
            return f"{(other.y_value_80 - other.y_value_20) / other.y_value_50:.0%}"
    return ""


def _ratio(document: Document, row: Row, first: str, mode: str, metric: str) -> str:
    theirs = document.median(row.x_value, first, mode, metric)
    ours = document.median(row.x_value, row.kernel_provider, mode, metric)
    return f"{theirs / ours:.2f}x" if theirs and ours else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
