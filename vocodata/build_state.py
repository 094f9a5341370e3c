"""How far a build is, and what came of what it expected; also while it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vocodata.ledger import EXCLUDED, STORED, Ledger, default_ledger
from vocodata.lock import is_locked
from vocodata.store.root import read_attributes, step_of, store_path


def build_status(store: str | Path, *, ledger: str | Path | None = None) -> dict[str, Any]:
    """How far a build is, also while it runs.

    Args:
        store: Folder of the store, or an `s3://` URL.
        ledger: As in `build`.

    Returns:
        Plain values: store, ledger, running, complete, found, stored, excluded, pending, step_hu
        (1 if no HU is lost); what headers foretold (`plan`) and what came of it (`fact`), each
        scans, bytes, seconds of all workers together, and worker_bytes, the most memory that one
        of them held; None if the ledger is not there or knows none.

    Raises:
        StoreError: The folder is no store.
    """
    root = store_path(store)
    attributes = read_attributes(root)
    found = attributes["counts"]["found"]
    counts = {STORED: attributes["counts"]["stored"], EXCLUDED: attributes["counts"]["excluded"]}
    path = default_ledger(root) if ledger is None else Path(ledger)
    plan = fact = None
    if path.exists():
        with Ledger(path, read_only=True) as book:
            counts = book.counts()
            plan, fact = _plan_and_fact(book, sum(counts.values()))
    pending = found - counts[STORED] - counts[EXCLUDED]
    return {
        "store": str(root),
        "ledger": str(path) if path.exists() else None,
        "running": is_locked(root, path),
        "complete": bool(attributes["complete"]) and pending == 0,
        "found": found,
        "stored": counts[STORED],
        "excluded": counts[EXCLUDED],
        "pending": pending,
        "step_hu": step_of(attributes),
        "plan": plan,
        "fact": fact,
    }


def _plan_and_fact(book: Ledger, settled: int) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """What headers foretold, if the ledger is not older than that, and what came of it so far."""
    plan = json.loads(book.note("plan") or "null")
    if plan is not None:
        plan.pop("recipe")
    stored_bytes, seconds = book.spent()
    held = int(book.note("worker_bytes") or 0)
    fact = {"scans": settled, "bytes": stored_bytes, "seconds": seconds, "worker_bytes": held}
    return plan, fact
