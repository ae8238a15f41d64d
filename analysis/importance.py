"""Which settings mattered: how much worse a forest predicts the score when one is shuffled.

T trials, F columns. A part and its arguments ("loss", "loss.gamma") are one group.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.leaderboard import Board
from trainables.data.cores import usable_cores
from trainables.metrics import Floats

FEWEST = 10  # trials
MOST = 800  # trials, drawn by chance: ten thousand tell the same in half a minute
FOLDS = 5
TREES = 60
SHUFFLES = 10
NOT_A_CHOICE = ("seed", "fold")


@dataclass(frozen=True)
class Target:
    """One score per trial (by id), all after as many epochs: at the first rung, or at the end."""

    scores: Mapping[str, float] = field(default_factory=dict)
    epoch: int | None = None  # None: the end

    @property
    def words(self) -> str:
        return "final score" if self.epoch is None else f"score after epoch {self.epoch}"


@dataclass(frozen=True)
class Importance:
    """The fall of R2 on held-out trials when a group is shuffled: (mean, spread), largest first."""

    groups: dict[str, tuple[float, float]] = field(default_factory=dict)
    r2: float = float("nan")
    note: str = ""
    target: Target = field(default_factory=Target)


def target_of(board: Board, table: pd.DataFrame) -> Target:
    """The scores of the ended trials: after the first rung where some were stopped, else final.

    How far a trial was let go follows from its settings: a final score mixes what the settings do
    with what the rungs did, and a column of epochs would take the settings' effect for its own.
    """
    ended = table[table["status"].isin(["completed", "stopped"]) & table["score"].notna()]
    final = {str(t): float(s) for t, s in zip(ended["trial"], ended["score"], strict=True)}
    rungs = board.meta.get("rungs") or ()
    if not (ended["status"] == "stopped").any() or not rungs:
        return Target(final)
    known = {
        record.id: float(row["score"])
        for record in board.records
        for row in record.history
        if record.id in final and row["epoch"] == rungs[0] and row.get("score") is not None
    }
    return Target(known, rungs[0])


def importance(
    table: pd.DataFrame, settings: Sequence[str], target: Target, seed: int = 0
) -> Importance:
    """Of the settings that varied, for the target."""
    names = [name for name in settings if name not in NOT_A_CHOICE]
    ended = table[table["trial"].isin(list(target.scores))]
    if len(ended) > MOST:
        ended = ended.sample(MOST, random_state=seed).sort_index()
    if len(ended) < FEWEST:
        return Importance(
            note=f"not computed: {len(ended)} trials ended with a score, {FEWEST} are needed"
        )
    if not names:
        return Importance(note="not computed: no setting varied")
    scores = ended["trial"].map(target.scores).to_numpy(np.float64)
    if scores.std() < 1e-9:
        return Importance(note="not computed: all trials have the same score")
    columns, owners = encode(ended, names)
    drops, r2 = _drops(columns, owners, scores, np.random.default_rng(seed))
    order = sorted(drops, key=lambda group: (-drops[group].mean(), group))
    groups = {g: (float(drops[g].mean()), float(drops[g].std())) for g in order}
    note = "" if r2 > 0.1 else (
        f"the forest explains next to nothing of unseen trials (R² {r2:.2f}): "
        "read nothing into these bars"
    )  # fmt: skip
    return Importance(groups, r2, note, target)


def encode(table: pd.DataFrame, names: Sequence[str]) -> tuple[Floats, list[str]]:
    """Columns (T, F) of numbers, and the group that each belongs to."""
    columns: list[Floats] = []
    owners: list[str] = []
    for name in names:
        values = table[f"setting {name}"]
        found = [numbers(values)] if is_number(values) else _one_hot(values)
        columns += found
        owners += [name.partition(".")[0]] * len(found)
    return np.stack(columns, 1), owners


def is_number(values: "pd.Series[Any]") -> bool:
    """Whether all values that are set are numbers."""
    return all(
        isinstance(v, int | float | np.number) and not isinstance(v, bool | np.bool_)
        for v in values.dropna()
    )


def is_log(values: "pd.Series[Any]") -> bool:
    """Whether the numbers span so much that their logarithm says more."""
    known = values.dropna().astype(float)
    return bool(len(known) and known.min() > 0 and known.max() / known.min() >= 10)


def numbers(values: "pd.Series[Any]") -> NDArray[np.float64]:
    """The setting as a number, in logarithm where it spans much; the median where it is not set."""
    out = values.to_numpy(np.float64, na_value=np.nan)
    out = np.log(out) if is_log(values) else out
    return np.where(np.isnan(out), np.nanmedian(out), out)


def texts(values: "pd.Series[Any]") -> NDArray[np.str_]:
    """The setting as text; "" where it is not set."""
    return np.array(["" if pd.isna(value) else str(value) for value in values])


def _one_hot(values: "pd.Series[Any]") -> list[Floats]:
    text = texts(values)
    return [(text == option).astype(np.float64) for option in sorted(set(text))]


def _drops(
    columns: Floats, owners: list[str], target: Floats, rng: np.random.Generator
) -> tuple[dict[str, Floats], float]:
    """The fall of the held-out R2 in each shuffle of each group, and the R2 itself."""
    from sklearn.ensemble import RandomForestRegressor

    groups = sorted(set(owners))
    fold = rng.permutation(len(target)) % FOLDS
    guess = np.zeros(len(target))
    shuffled = {group: np.zeros((SHUFFLES, len(target))) for group in groups}
    orders = [
        [[rng.permutation((fold == held).sum()) for _ in range(SHUFFLES)] for _ in groups]
        for held in range(FOLDS)
    ]

    def judge(held: int) -> None:
        inside, outside = fold != held, fold == held
        forest = RandomForestRegressor(TREES, max_features=0.5, random_state=0, n_jobs=1)
        forest.fit(columns[inside], target[inside])
        guess[outside] = forest.predict(columns[outside])
        for group, order in zip(groups, orders[held], strict=True):
            own = [i for i, owner in enumerate(owners) if owner == group]
            trials = [columns[outside].copy() for _ in range(SHUFFLES)]
            for trial, rows in zip(trials, order, strict=True):
                trial[:, own] = trial[rows][:, own]
            said = forest.predict(np.concatenate(trials))
            shuffled[group][:, outside] = said.reshape(SHUFFLES, -1)

    with ThreadPoolExecutor(usable_cores()) as pool:  # the trees let other threads run
        list(pool.map(judge, range(FOLDS)))
    spread = target.var()
    base = float(1 - ((guess - target) ** 2).mean() / spread)
    falls = {
        group: base - (1 - ((said - target) ** 2).mean(1) / spread)
        for group, said in shuffled.items()
    }
    return falls, base
