"""What an ablation trains: the baseline, each run's best, the winner without each technique.

What a technique is, says `techniques.py`. Pure: boards in, a plan out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from analysis import leaderboard as lb
from analysis import rerun
from analysis.leaderboard import Board
from analysis.techniques import techniques, told, unseeded, without
from trainables.config import Flat, TrialConfig
from trainables.contradictions import check_config
from trainables.registry import unknown
from trainables.store import Record

Kind = Literal["baseline", "control", "rung", "without"]
AS_LONG = "baseline, trained as long"  # as the winner: its images again and again
DEARER = 1.25  # times the baseline's cost: from then on it is a row


@dataclass(frozen=True)
class Arm:
    """A configuration that is trained under every seed, and why."""

    role: str  # its name in the table
    kind: Kind
    config: Flat  # whole, without seed
    source: str  # the run and trial that it is from
    change: str = ""  # of "without": what was switched off, from what to what


@dataclass(frozen=True)
class Budget:
    """What a run of the ladder was given."""

    run: str
    space: str
    trials: int
    epochs: int


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before an ablation is trained."""

    arms: tuple[Arm, ...]
    winner: str  # the role of the arm that the others leave something out of
    seeds: tuple[int, ...]
    fingerprint: str
    budgets: tuple[Budget, ...]
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)  # of one trial of a role, measured


def make_plan(
    boards: Sequence[Board],
    seeds: int,
    top: int = 1,
    epochs: int | None = None,
    kept: Sequence[str] = (),
) -> Plan:
    """The arms of an ablation of these runs, the ladder in their order.

    The techniques in `kept` are not switched off.
    Raises ValueError where the runs do not compare, or there is nothing to compare.
    """
    check_alike(boards, epochs)
    base = _baseline(boards[0], epochs)
    rungs, scores, notes = list[Arm](), dict[str, float](), list[str]()
    for board in boards:
        for place, (record, score) in enumerate(_best(board, top), 1):
            arm = _rung(board, record, place, top, epochs)
            same = next((a for a in [base, *rungs] if a.config == arm.config), None)
            if same is not None:
                notes.append(f"{arm.role} is the same configuration as {same.role}")
                continue
            if arm.role in scores:
                arm = Arm(f"{arm.role} ({_name(board)})", arm.kind, arm.config, arm.source)
            rungs.append(arm)
            scores[arm.role] = score
    if not rungs:
        raise ValueError("the best of every run is the baseline itself: there is nothing to ablate")
    winner = max(rungs, key=lambda arm: scores[arm.role])
    left_out, more = _left_out(winner, base, rungs, kept)
    first = 1 + max(int(r.config["seed"]) for board in boards for r in board.records)
    paces = _paces(boards)
    arms = (base, *_as_long(base, _cost(winner, boards, paces)), *rungs, *left_out)
    return Plan(
        arms,
        winner.role,
        tuple(range(first, first + seeds)),
        str(boards[0].meta["data"].get("fingerprint")),
        tuple(map(_budget, boards)),
        (*notes, *more),
        {a.role: paces[a.source] * _longer(a) * int(a.config["epochs"]) for a in arms},
    )


def _as_long(base: Arm, cost: float) -> Iterator[Arm]:
    """The baseline on its training images several times an epoch, if the winner costs that much."""
    if cost >= DEARER and base.config["features"] == "none":
        ratio = round(cost - 1, 2)
        again: Flat = {"synthetic": "repeated", "synthetic.balance": 0.0, "synthetic.ratio": ratio}
        config = TrialConfig.from_flat({**base.config, **again})
        yield Arm(AS_LONG, "control", unseeded(config.flat()), base.source)


def _cost(winner: Arm, boards: Sequence[Board], paces: Mapping[str, float]) -> float:
    """How many times as long as the baseline of its run the winner trains; 1 where it has none."""
    run = winner.source.rpartition("/")[0]
    for board in boards:
        for record in board.records:
            if _name(board) == run and record.role == "baseline" and paces[_source(board, record)]:
                return paces[winner.source] / paces[_source(board, record)]
    return 1.0


def _longer(arm: Arm) -> float:
    """How many times the epoch of the trial that it is from an epoch of the arm takes."""
    return 1 + float(arm.config["synthetic.ratio"]) if arm.kind == "control" else 1.0


def check_alike(boards: Sequence[Board], epochs: int | None) -> None:
    """Raise ValueError unless all runs are of the same data, size and score."""
    first = boards[0]
    for board in boards[1:]:
        for what, one, other in (
            ("data", first.meta["data"].get("fingerprint"), board.meta["data"].get("fingerprint")),
            ("metric", first.goal.name, board.goal.name),
            ("epochs", epochs or first.meta["epochs"], epochs or board.meta["epochs"]),
        ):
            if one != other:
                names = f"'{first.run.root}' and '{board.run.root}'"
                shown = f"{one} and {other}"
                if what == "data":
                    sources = (b.meta["data"].get("source") for b in (first, board))
                    shown = " and ".join(map(str, sources)) + f" (contents {shown})"
                hint = ": give --epochs, for all of them" if what == "epochs" else ""
                raise ValueError(f"{names} do not compare, their {what} differ: {shown}{hint}")


def _baseline(board: Board, epochs: int | None) -> Arm:
    for record in board.records:
        if record.role == "baseline":
            return Arm("baseline", "baseline", _sized(record, epochs), _source(board, record))
    raise ValueError(f"'{board.run.root}' has no baseline trial: begin with a run that has one")


def _best(board: Board, top: int) -> list[tuple[Record, float]]:
    """The best completed trials, no two of one configuration, with their validation scores."""
    ended = lb.completed(lb.frame(board))
    if ended.empty:
        raise ValueError(f"'{board.run.root}' has no completed trial: let it run to its end")
    found: dict[str, tuple[Record, float]] = {}
    for trial, score in zip(ended["trial"], ended["score"], strict=True):
        record = board.record(trial)
        found.setdefault(TrialConfig.from_flat(record.config).group_id, (record, float(score)))
    return list(found.values())[:top]


def _rung(board: Board, record: Record, place: int, top: int, epochs: int | None) -> Arm:
    role = str((board.meta.get("space") or {}).get("name") or _name(board))
    role = "best of " + role + (f", rank {place}" if top > 1 else "")
    return Arm(role, "rung", _sized(record, epochs), _source(board, record))


def _sized(record: Record, epochs: int | None) -> Flat:
    config = unseeded(TrialConfig.from_flat(record.config).flat())
    return {**config, "epochs": epochs} if epochs else config


def _name(board: Board) -> str:
    return str(board.meta.get("name") or board.run.root.name)


def _source(board: Board, record: Record) -> str:
    return f"{_name(board)}/{record.id}"


def _left_out(
    winner: Arm, base: Arm, rungs: Sequence[Arm], kept: Sequence[str] = ()
) -> tuple[list[Arm], list[str]]:
    """The winner without each technique; a sentence for each that is not taken out alone."""
    arms, there = list[Arm](), techniques(winner.config, base.config)
    if strange := [name for name in kept if name not in there]:
        raise LookupError(unknown("technique of the winner", strange[0], there))
    notes = [f"{name} was not switched off, as was asked" for name in kept]
    for technique in there:
        if technique in kept:
            continue
        config = without(winner.config, base.config, technique)
        same = next((a.role for a in (base, *rungs, *arms) if a.config == config), None)
        if problem := _contradiction(config):
            notes.append(f"{technique} cannot be switched off alone: {problem}")
        elif same is not None:
            notes.append(f"without {technique} the winner is '{same}': one row stands for both")
        else:
            change = (
                f"{told(winner.config, technique, base.config)} → "
                f"{told(base.config, technique, winner.config)}"
            )
            arms.append(Arm(f"without {technique}", "without", config, winner.source, change))
    return arms, notes


def _contradiction(config: Flat) -> str:
    try:
        check_config(TrialConfig.from_flat(config))
    except ValueError as error:
        return str(error)
    return ""


def _budget(board: Board) -> Budget:
    space = str((board.meta.get("space") or {}).get("name") or "?")
    epochs = sum(len(record.history) for record in board.records)
    return Budget(_name(board), space, len(board.records), epochs)


def _paces(boards: Sequence[Board]) -> dict[str, float]:
    """Seconds of an epoch of every trial, by its source."""
    pace: dict[str, float] = {}
    for board in boards:
        for record in board.records:
            took = [float(row.get("seconds") or 0) for row in record.history]
            pace[_source(board, record)] = sum(took) / max(1, len(took))
    return pace


def save(plan: Plan, folder: Path) -> Path:
    """Keep the plan in the folder; the path of the file for `search.run --configs`."""
    return rerun.save(asdict(plan), folder)


def load(folder: Path) -> Plan:
    """The plan that was saved. Raises FileNotFoundError or ValueError."""
    plan = rerun.load(folder, _plan)
    if plan is None:
        path = folder / rerun.PLAN
        raise FileNotFoundError(f"no plan at '{path}': leave out --skip-run to make and train one")
    return plan


def _plan(data: dict[str, Any]) -> Plan:
    arms = tuple(Arm(**arm) for arm in data.pop("arms"))
    budgets = tuple(Budget(**budget) for budget in data.pop("budgets"))
    seeds, notes = tuple(data.pop("seeds")), tuple(data.pop("notes"))
    return Plan(arms=arms, budgets=budgets, seeds=seeds, notes=notes, **data)
