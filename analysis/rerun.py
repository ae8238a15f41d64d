"""Plans of what is trained anew by `search.run --configs`: of an ablation, of a confirmation.

A plan is a dataclass of theirs, here as data: its arms have a role and a configuration.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from analysis.board import Board, status
from trainables.config import Flat, TrialConfig
from trainables.store import write_json

P = TypeVar("P")
NAME = "rerun"  # of the run that trains a plan, in the plan's folder
PLAN, CONFIGS = "plan.json", "configs.json"
WHERE = "after --, flags of search.run that say where it runs, such as -- --max-concurrent 2"
LABELS = ("--aus", "--au-null", "--au-sides")  # flags that say what the data are, besides --data


class Arm(Protocol):
    """A configuration of a plan, without seed, and its name there."""

    @property
    def role(self) -> str: ...

    @property
    def config(self) -> Flat: ...


def divide(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before and after the first `--`: the command's own, and those of `search.run`."""
    cut = list(words).index("--") if "--" in words else len(words)
    return list(words[:cut]), list(words[cut + 1 :])


def data_flags(meta: Mapping[str, Any]) -> Iterator[str]:
    """The flags of `search.run` for the data of a run, its labels read as there, at its tier."""
    yield from ("--data", str(meta["data"]["source"]))
    words = [word for w in meta.get("command") or () for word in str(w).split("=", 1)]
    for flag, value in zip(words, words[1:], strict=False):
        if flag in LABELS:
            yield from (flag, value)
    if isinstance(tier := meta.get("tier"), str):
        yield from ("--tier", tier)


def save(plan: Mapping[str, Any], folder: Path) -> Path:
    """Write plan.json and configs.json, what `search.run --configs` reads; the latter's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PLAN, plan)
    path = folder / CONFIGS
    write_json(path, [{"role": arm["role"], "config": arm["config"]} for arm in plan["arms"]])
    return path


def load(folder: Path, make: Callable[[dict[str, Any]], P]) -> P | None:
    """The plan that was saved; None where there is none. Raises ValueError for a damaged one."""
    path = folder / PLAN
    if not path.is_file():
        return None
    try:
        return make(json.loads(path.read_text()))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"'{path}' cannot be read as a plan: {error}") from error


def check_data(board: Board, fingerprint: str | None, of: str) -> None:
    """Raise ValueError where the rerun was trained on other data than those `of` whom it is."""
    found = board.meta["data"].get("fingerprint")
    if found != fingerprint:
        raise ValueError(
            f"'{board.run.root}' was trained on other data ({found}) than {of} ({fingerprint}): "
            "are the files that it was read from still the same? Put them back as they were, or "
            "search them anew"
        )


def trials_of(arms: Sequence[Arm], board: Board) -> dict[str, dict[int, str]]:
    """Role -> seed -> the completed trial of it, with all its folds, that has predictions."""
    roles = {TrialConfig.from_flat(arm.config).group_id: arm.role for arm in arms}
    out: dict[str, dict[int, str]] = {arm.role: {} for arm in arms}
    known = set(board.votes.trials)
    for record in board.records:
        config = TrialConfig.from_flat(record.config)
        is_whole = status(record, board.meta) == "completed" and record.id in known
        if is_whole and config.group_id in roles:
            out[roles[config.group_id]][config.seed] = record.id
    return out
