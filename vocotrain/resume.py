"""Taking up a run: its settings as they were saved, and what may differ from them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vocotrain.config import PretrainConfig, load_config
from vocotrain.errors import CheckpointError, ResumeMismatchError, StoreMismatchError
from vocotrain.run_folder import CONFIG_NAME, DATA_NAME, ENVIRONMENT_NAME, check_is_run
from vocotrain.settings import keys_of, read_tree, recipe_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vocotrain.finetune_config import FinetuneConfig

    _RunSettings = PretrainConfig | FinetuneConfig

MAY_CHANGE_ON_RESUME = frozenset(
    {
        "out",
        "data.store",
        "data.exclude",
        "data.workers",
        "data.prefetch_batches",
        "model.checkpointing",
        "train.steps",
        "train.log_every",
        "train.checkpoint_every",
        "train.keep_checkpoints",
        "train.eval_every",
        "train.eval_fields",
        "device",
        "threads",
    }
)
"""Keys that a resumed run may have otherwise; the store may move, but its digest must stay, and so
may lists of scans to leave out, as long as they leave out the same."""


def load_run_config(run: Path, sets: Sequence[str] = ()) -> PretrainConfig:
    """Settings of an earlier run, to go on with; the folder may have moved.

    Args:
        run: The run's folder.
        sets: Words `a.b=c`; `MAY_CHANGE_ON_RESUME` says which are allowed.

    Raises:
        CheckpointError: The folder is no run.
        ConfigError: Its settings, or the words, are wrong.
    """
    return load_config(saved_recipe(run, "pretrain"), sets, values={"out": str(run)})


def saved_recipe(run: Path, command: Literal["pretrain", "finetune"]) -> Path:
    """The settings that a run keeps, as a recipe to go on with.

    Args:
        run: The run's folder.
        command: What shall go on with it.

    Raises:
        CheckpointError: The folder is no run, or a run of the other command.
        ConfigError: Its settings cannot be read.
    """
    check_is_run(run)
    path = run / CONFIG_NAME
    began = "finetune" if "task" in read_tree(recipe_text(path), str(path)) else "pretrain"
    if began != command:
        msg = (
            f"{run} is a run of `voco train {began}`; expected one of `voco train {command}`. Go "
            f"on by `voco train {began} --resume {shlex.quote(str(run))}`."
        )
        raise CheckpointError(msg)
    return path


def check_steps(out: Path, *, done: int, wanted: int) -> None:
    """Refuse to end a run at a step that lies behind it.

    Raises:
        ResumeMismatchError: It has done more steps than are wanted.
    """
    if done > wanted:
        msg = (
            f"Run {out} has done {done} steps; expected train.steps of at least that, got "
            f"{wanted}. Give more steps, or start a new run."
        )
        raise ResumeMismatchError(msg)


def check_resumable(config: PretrainConfig, digest: str) -> None:
    """Refuse to go on with what would not be the same run.

    Args:
        config: Settings now; `config.out` is the run.
        digest: Digest of the store now.

    Raises:
        CheckpointError: `data.json` cannot be read.
        ResumeMismatchError: Settings differ that may not.
        StoreMismatchError: The store is another one.
    """
    before = load_config(Path(config.out) / CONFIG_NAME)
    check_same_run(
        before, config, may_change=MAY_CHANGE_ON_RESUME, store=config.data.store, digest=digest
    )


def check_same_exclusions(run: Path, excluded: Sequence[str]) -> None:
    """Refuse lists that leave out other scans than those a run was started without.

    Args:
        run: The run's folder.
        excluded: Ids that are left out now.

    Raises:
        CheckpointError: `data.json` cannot be read.
        ResumeMismatchError: Other scans are left out.
    """
    before = _bill(run).get("excluded", [])
    differing = sorted(set(before) ^ set(excluded))
    if differing:
        msg = (
            f"Run {run} was started without {len(before)} scans that data.exclude listed, and the "
            f"lists leave out {len(excluded)} now; {differing[0]} is in one only. Give the lists "
            "it was started with, or start a new run."
        )
        raise ResumeMismatchError(msg)


def changed_processes(run: Path, now: int) -> list[str]:
    """A warning if a run goes on in another number of processes than it was started in.

    Each process normalises and compares its own volumes alone, so the numbers become others.
    """
    try:
        before = json.loads((run / ENVIRONMENT_NAME).read_text(encoding="utf-8"))["processes"]
    except (OSError, ValueError, KeyError, TypeError):
        # what a run says of its machine is no condition for going on
        return []
    if before == now:
        return []
    told = (
        f"The run had {before} processes before and has {now} now: batch norm and the comparison "
        "between volumes see other neighbours, so it goes on, but not bit for bit."
    )
    return [told]


def check_same_run(
    before: _RunSettings,
    now: _RunSettings,
    *,
    may_change: frozenset[str],
    store: str,
    digest: str,
) -> None:
    """Refuse settings or a store that differ from those a run was started with.

    Args:
        before: Settings as the run has them.
        now: Settings it shall go on with; `now.out` is the run.
        may_change: Dotted keys that may differ.
        store: The store now, as the settings call it.
        digest: Its digest.

    Raises:
        CheckpointError: `data.json` cannot be read.
        ResumeMismatchError: Settings differ that may not.
        StoreMismatchError: The store is another one.
    """
    out = Path(now.out)
    was, is_now = before.model_dump(mode="json"), now.model_dump(mode="json")
    changed = [
        f"{key}: was {_at(was, key)}, is {_at(is_now, key)}"
        for key in keys_of(type(now))
        if key not in may_change and _at(was, key) != _at(is_now, key)
    ]
    if changed:
        msg = (
            f"Run {out} was started with other settings; expected the same on resume. "
            f"{'; '.join(changed)}. Leave them as they were, or start a new run."
        )
        raise ResumeMismatchError(msg)
    started_on = _started_on(out)
    if started_on != digest:
        msg = (
            f"Run {out} was started on a store with digest {started_on[:12]}, and {store} has "
            f"{digest[:12]}. Give the store it was started on, or start a new run."
        )
        raise StoreMismatchError(msg)


def _started_on(out: Path) -> str:
    try:
        return str(_bill(out)["store_digest"])
    except KeyError as error:
        msg = f"{out / DATA_NAME} is damaged; expected the store's digest in it. {error!r}"
        raise CheckpointError(msg) from error


def _bill(out: Path) -> dict[str, Any]:
    try:
        bill = json.loads((out / DATA_NAME).read_text(encoding="utf-8"))
        return dict(bill)
    except (OSError, ValueError, TypeError) as error:
        msg = f"{out / DATA_NAME} is damaged; expected the store's digest in it. {error!r}"
        raise CheckpointError(msg) from error


def _at(tree: Any, key: str) -> Any:  # noqa: ANN401 (a plain tree of settings)
    for part in key.split("."):
        tree = tree[part]
    return tree
