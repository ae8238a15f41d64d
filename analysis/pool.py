"""The trials of one run, or of several on the same data, as one pool of possible members."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from analysis.board import goal_of
from analysis.ensemble import NOTHING, Known
from analysis.leaderboard import Board, baseline, candidates, read_board
from analysis.record import Origin
from analysis.statistics import Goal
from analysis.votes import Votes
from trainables.metrics import Ints
from trainables.store import Record, RunStore


@dataclass(frozen=True)
class Runs:
    """What an ensemble is made of."""

    votes: Votes  # of the candidates of all runs
    goal: Goal
    known: Known
    origin: Origin
    baseline: Ints | None  # calls of the first run's baseline
    notes: tuple[str, ...]


def read_runs(roots: Sequence[Path]) -> Runs:
    """The candidates of these runs. Raises ValueError where the runs do not belong together or no
    trial has usable predictions."""
    if len({root.resolve() for root in roots}) < len(roots):
        raise ValueError("a run is named twice")
    boards = [read_board(RunStore.open(root)) for root in roots]
    for board in boards[1:]:
        check_alike(boards[0], board)
    return of_boards(boards)


def of_boards(boards: Sequence[Board]) -> Runs:
    """The candidates of runs that belong together, named by trial, or RUN/trial if several."""
    first = boards[0]
    notes: list[str] = []
    members: dict[str, tuple[Path, str]] = {}
    labels = [""] if len(boards) == 1 else [f"{name}/" for name in _distinct(boards)]
    parts, known = [], []
    for board, label in zip(boards, labels, strict=True):
        chosen, note = candidates(board)
        where = f"{label.rstrip('/')}: " if label else ""
        notes += [f"{where}{line}" for line in (note, *_left_out(board)) if line]
        votes = board.votes.full.pick(chosen)
        parts.append(replace(votes, trials=tuple(label + t for t in votes.trials)))
        known.append(known_of(board.records, label))
        members |= {label + t: (board.run.root, t) for t in chosen}
    votes = _joined([part for part in parts if part.trials])
    kept, note = _without_twins(votes, members)
    return Runs(
        kept,
        goal_of(first.meta, kept.labels, len(first.class_names)),
        Known(
            {t: ms for k in known for t, ms in k.latency_ms.items()},
            {t: group for k in known for t, group in k.group.items()},
            first.train_counts,
        ),
        origin_of(first, members),
        first.votes.calls(baseline(first)[0]) if first.votes.ids == kept.ids else None,
        tuple(line for line in (*notes, note) if line),
    )


def origin_of(board: Board, members: Mapping[str, tuple[Path, str]]) -> Origin:
    """Where members come from, and what an ensemble of them is of: the same for all their runs."""
    fingerprint = board.meta["data"].get("fingerprint")
    return Origin(members, board.class_names, fingerprint, board.goal.name)


def check_alike(one: Board, other: Board) -> None:
    """Raises ValueError, naming the difference, where two runs cannot share an ensemble."""
    what = {
        "data": [b.meta["data"].get("fingerprint") for b in (one, other)],
        "classes": [", ".join(b.class_names) for b in (one, other)],
        "objective": [b.goal.name for b in (one, other)],
    }
    for name, (a, b) in what.items():
        if a != b or a is None:
            raise ValueError(
                f"runs '{one.run.root}' and '{other.run.root}' cannot share an ensemble: their "
                f"{name} differ ({a or 'not recorded'}; {b or 'not recorded'})"
            )


def known_of(records: Iterable[Record], label: str = "") -> Known:
    """Latency of the trials that have it on record, and which differ in the seed alone."""
    latency, group = {}, {}
    for record in records:
        last = record.history[-1] if record.history else {}
        ms = last.get("latency_ms") or (record.result.metrics if record.result else {}).get(
            "latency_ms"
        )
        if ms:
            latency[label + record.id] = float(ms)
        settings = {k: v for k, v in record.config.items() if k != "seed"}
        if record.role == "soup":  # its settings are those of its first member
            settings["soup"] = record.id
        group[label + record.id] = json.dumps(settings, sort_keys=True)
    return Known(latency, group)


def _distinct(boards: Sequence[Board]) -> list[str]:
    """The name of each run's folder, numbered where two are alike."""
    names: list[str] = []
    for board in boards:
        name, count = board.run.root.resolve().name, 2
        while name in names:
            name, count = f"{board.run.root.resolve().name}#{count}", count + 1
        names.append(name)
    return names


def _left_out(board: Board) -> list[str]:
    count = len(board.votes.problems)
    if not count:
        return []
    trial, why = next(iter(sorted(board.votes.problems.items())))
    return [f"{count} of {len(board.records)} trials have no usable predictions ({trial}: {why})"]


def _joined(parts: Sequence[Votes]) -> Votes:
    """The votes of all runs in the order of the first one's images, trials sorted by name.

    Raises ValueError where there is none or the images differ.
    """
    if not parts:
        raise ValueError(NOTHING)
    first = parts[0]
    place = {image: row for row, image in enumerate(first.ids)}
    probs, aus = [], []
    for part in parts:
        if set(part.ids) != set(first.ids):
            shared = len(set(part.ids) & set(first.ids))
            raise ValueError(
                f"the validation images of {part.trials[0]} and {first.trials[0]} differ: "
                f"{shared} of {len(first.ids)} are shared"
            )
        order = np.argsort([place[image] for image in part.ids])
        if (part.labels[order] != first.labels).any():
            raise ValueError(f"{part.trials[0]} and {first.trials[0]} have different labels")
        probs.append(part.probs[:, order])
        same = part.au_probs.shape[2] == first.au_probs.shape[2]
        shape = (len(part.trials), *first.aus.shape)
        aus.append(part.au_probs[:, order] if same else np.full(shape, np.nan, np.float32))
    trials = [trial for part in parts for trial in part.trials]
    rows = sorted(range(len(trials)), key=trials.__getitem__)
    return replace(
        first,
        trials=tuple(trials[row] for row in rows),
        probs=np.concatenate(probs)[rows],
        au_probs=np.concatenate(aus)[rows],
        problems={},
    )


def _without_twins(votes: Votes, members: dict[str, tuple[Path, str]]) -> tuple[Votes, str]:
    """The votes without trials that stand in two runs with the very same predictions."""
    seen: set[tuple[str, bytes]] = set()
    kept = []
    for trial, probs in zip(votes.trials, votes.probs, strict=True):
        key = members[trial][1], probs.tobytes()
        if key not in seen:
            kept.append(trial)
        seen.add(key)
    gone = len(votes.trials) - len(kept)
    return votes.pick(kept), f"{gone} trials stand in two runs and count once" if gone else ""
