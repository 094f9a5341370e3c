"""The bill of materials: which scans, under which licences, a run was trained on."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vocotrain.excluded_scans import Exclusions
    from vocotrain.scan_table import ScanTable


def bill_of_materials(
    *,
    store: str,
    digest: str,
    training: ScanTable,
    held_out: ScanTable,
    unused: list[str],
    excluded: Exclusions,
) -> dict[str, Any]:
    """Describe the data of a run as JSON holds it.

    Args:
        store: Where the store was, as the settings say.
        digest: Digest of the store's content.
        training: Scans trained on.
        held_out: Scans held out.
        unused: Ids of scans that are neither, for a weight of 0.
        excluded: Scans that are left out because a list says so.
    """
    licences = Counter(row.licence or "unknown" for row in training.rows)
    return {
        "store": store,
        "store_digest": digest,
        "counts": {
            "trained_on": len(training),
            "held_out": len(held_out),
            "unused": len(unused),
            "excluded": len(excluded.scans),
        },
        "leaks": excluded.leaks,
        "exclusion_lists": [use.plain() for use in excluded.lists],
        "licences": dict(sorted(licences.items())),
        "trained_on": [
            {
                "id": row.id,
                "source": row.id.split("/", 1)[0],
                "licence": row.licence,
                "weight": row.weight,
                "window_hu": list(row.window_hu),
                "digest": row.digest,
            }
            for row in training.rows
        ],
        "held_out": [row.id for row in held_out.rows],
        "unused": unused,
        "excluded": sorted(excluded.scans),
    }
