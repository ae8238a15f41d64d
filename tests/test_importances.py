"""Importances against what is known of a made-up function, and beside Optuna's fANOVA.

With independent settings and a sum of effects, the fall of R2 when one is shuffled is in proportion
to its share of the variance, which is what fANOVA tells (Hutter et al. 2014).
"""

from collections.abc import Callable

import numpy as np
import optuna
import pandas as pd
import pytest
from numpy.typing import NDArray

from analysis.importance import Target, importance

TRIALS = 300
Columns = dict[str, NDArray[np.float64]]


def drawn(score: Callable[[Columns], NDArray[np.float64]]) -> tuple[Columns, NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    columns = {name: rng.uniform(-1, 1, TRIALS) for name in ("a", "b", "c")}
    return columns, score(columns)


def ours(columns: Columns, scores: NDArray[np.float64]) -> dict[str, float]:
    trials = [f"t{n}" for n in range(TRIALS)]
    table = pd.DataFrame({"trial": trials, **{f"setting {n}": v for n, v in columns.items()}})
    found = importance(table, list(columns), Target(dict(zip(trials, scores, strict=True))))
    return {name: mean for name, (mean, _) in found.groups.items()}


def fanova(columns: Columns, scores: NDArray[np.float64]) -> dict[str, float]:
    """Optuna's shares; it makes them sum to 1."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    distribution = optuna.distributions.FloatDistribution(-1, 1)
    for n, score in enumerate(scores):
        params = {name: float(values[n]) for name, values in columns.items()}
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=dict.fromkeys(params, distribution), value=float(score)
            )
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def test_of_a_sum_of_effects_the_falls_are_the_shares_of_the_variance_as_in_fanova() -> None:
    # variances 9/3, 1/3, 0: shares .9, .1, 0
    columns, scores = drawn(lambda x: 3 * x["a"] + x["b"])
    mine, theirs = ours(columns, scores), fanova(columns, scores)
    assert list(mine) == ["a", "b", "c"]
    assert list(theirs) == list(mine)
    for name, share in (("a", 0.9), ("b", 0.1), ("c", 0.0)):
        assert mine[name] / sum(mine.values()) == pytest.approx(share, abs=0.06), name
        assert theirs[name] == pytest.approx(share, abs=0.06), name


def test_a_setting_that_matters_only_beside_another_is_seen_where_fanova_sees_none() -> None:
    columns, scores = drawn(lambda x: np.sign(x["a"]) * np.sign(x["b"]) + 0.3 * x["c"])
    mine = ours(columns, scores)
    assert min(mine["a"], mine["b"]) > 5 * mine["c"]
    shares = fanova(columns, scores)
    assert max(shares["a"], shares["b"]) < 3 * shares["c"]
