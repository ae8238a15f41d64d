"""Warm start: what earlier runs learned, mapped into the space of a new one.

Settings that both spaces have keep their values, new ones take their defaults; epochs are scaled to
the new length. The new run keeps a copy (`warm_start.json`), so that it stands on its own record.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from search.check import constants_of
from search.folder import read_meta
from search.outcome import score
from search.proposer import Anchor, Model, own_value
from spaces.space import Dimension, Space, Value
from trainables.config import REPEATED, Flat, TrialConfig
from trainables.store import Record, Row, RunStore, Status, replace_file

COPY = "warm_start.json"
SIZES = {"epochs", "warmup_epochs", "image_size", *REPEATED}  # may differ, and be comparable
FIRST = 3  # of the best earlier configurations that are tried again at the start


@dataclass(frozen=True)
class Earlier:
    """A trial of an earlier run as a point of the new space."""

    id: str  # path of the run/trial
    params: dict[str, Value]  # of the dimensions that apply
    flat: dict[str, Value]  # the whole configuration
    scores: dict[int, float]  # epoch of the new run -> score
    status: Status
    is_exact: bool  # whether no setting had to take its default


def gather(
    roots: Sequence[Path], space: Space, epochs: int, metric: str, fingerprint: str
) -> tuple[list[Earlier], list[str]]:
    """The ended trials of the runs, and a sentence on each run.

    Raises ValueError or FileNotFoundError for a run whose scores cannot be read or mean other
    things.
    """
    found, notes = list[Earlier](), list[str]()
    for root in roots:
        store = RunStore.open(root)
        meta = read_meta(store)
        if meta["metric"] != metric:
            raise ValueError(
                f"--warm-start '{root}': its trials were scored by {meta['metric']}, not {metric}: "
                f"give --metric {meta['metric']}, or leave it out"
            )
        trials = [
            _earlier(record, str(store.root.resolve()), space, epochs / meta["epochs"])
            for record in store.records()
            if record.result is not None and record.history
        ]
        notes.append(_note(root, trials, meta["data"].get("fingerprint") == fingerprint))
        found += trials
    return found, notes


def _note(root: Path, trials: Sequence[Earlier], is_same_data: bool) -> str:
    exact = sum(trial.is_exact for trial in trials)
    data = "" if is_same_data else "; its data are others, so what it found may not hold here"
    return (
        f"warm start from '{root}': {len(trials)} trials, {exact} of them as they would be here, "
        f"the others with this space's values where theirs do not fit{data}"
    )


def _earlier(record: Record, run: str, space: Space, stretch: float) -> Earlier:
    params, missing = dict[str, Value](), list[str]()
    driven = constants_of(space, "curriculum_drives") or (TrialConfig.curriculum_drives,)
    is_driven = record.config.get("curriculum_drives", TrialConfig.curriculum_drives) in driven

    def pick(name: str, dim: Dimension) -> Value:
        try:
            if name.startswith("curriculum") and not is_driven:
                raise ValueError("a curriculum of another kind has settings of the same names")
            params[name] = own_value(dim, record.config[name])
        except (KeyError, ValueError):
            missing.append(name)
            params[name] = dim.default
        return params[name]

    flat = space.draw(pick)
    scores = {max(1, round(row["epoch"] * stretch)): score(row) for row in record.history}
    assert record.result is not None
    return Earlier(
        f"{run}/{record.id}",
        params,
        flat,
        {epoch: value for epoch, value in scores.items() if isfinite(value)},
        record.result.status,
        not missing and not _other_constants(record.config, flat),
    )


def _other_constants(then: Flat, now: Mapping[str, Value]) -> list[str]:
    """Settings, sizes apart, that the trial had and that its point of the new space has not."""
    whole = TrialConfig.from_flat(now).flat()
    names = {name for name in {*then, *whole} if then.get(name) != whole.get(name)}
    return sorted(names - SIZES)


def save(earlier: Sequence[Earlier], root: Path) -> None:
    """Keep the copy with the new run."""
    data = json.dumps([asdict(trial) for trial in earlier], indent=1, allow_nan=False)
    replace_file(root / COPY, data.encode(), is_durable=True)


def load(root: Path) -> list[Earlier]:
    """The copy that a run keeps; nothing where it began without."""
    path = root / COPY
    if not path.exists():
        return []
    return [_read(data) for data in json.loads(path.read_text())]


def _read(data: Mapping[str, Any]) -> Earlier:
    scores = {int(epoch): float(value) for epoch, value in data["scores"].items()}
    return Earlier(**{**data, "scores": scores})


def teach(model: Model, earlier: Sequence[Earlier]) -> None:
    """Let a model learn from earlier trials, as if they had been its own."""
    for number, trial in enumerate(earlier):
        model.reopen(trial.id, trial.params, seed=number)
        for epoch, value in sorted(trial.scores.items()):
            model.observe(trial.id, epoch, value)
        rows: list[Row] = [
            {"epoch": epoch, "score": value} for epoch, value in sorted(trial.scores.items())
        ]
        model.tell(trial.id, rows, trial.status)


def first_trials(earlier: Sequence[Earlier]) -> list[Anchor]:
    """The best earlier configurations that were trained whole, each once, to be tried again."""
    whole = [trial for trial in earlier if trial.status == "completed" and trial.scores]
    whole.sort(key=lambda trial: (-trial.scores[max(trial.scores)], trial.id))
    distinct: list[dict[str, Value]] = []
    for trial in whole:
        if trial.flat not in distinct:
            distinct.append(trial.flat)
    return [("warm start", flat) for flat in distinct[:FIRST]]
