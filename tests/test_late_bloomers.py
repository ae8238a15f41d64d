"""Whole searches with a configuration that is worst at the first rung and best at the end."""

import pytest
from test_core import row
from toy import EPOCHS, flat, start

from search import core
from search.inline import run_inline
from trainables.config import TrialConfig, pacing_horizon
from trainables.store import TrialResult

BLOOMERS = {  # what makes a trial late -> its settings, and the epoch until which it is behind
    "deferred re-weighting": ({"rebalance": "deferred", "rebalance.start": 0.6}, 6),
    "curriculum": ({"curriculum": "linear", "curriculum.full_at": 0.3}, 3),
    "warm-up": ({"warmup_epochs": 4.0}, 4),
}


def run_curve(store, data):
    """Behind all others until its horizon, above all others after it; the others' `lr` decides."""
    config = store.config()
    horizon = pacing_horizon(config)
    for epoch in range(1, EPOCHS + 1):
        is_late = horizon > 1
        score = (0.1 if epoch < horizon else 0.9) if is_late else 0.4 + 10 * config.lr
        found = row(epoch, score + 0.001 * epoch, done=epoch == EPOCHS)
        store.append(found)
        if found["done"]:
            store.finish(TrialResult("completed", {"score": found["score"]}, epoch, 1.0))
        yield found


def searched(root, bloomer, pruner):
    """A search of eight trials, the bloomer the sixth; it, and its trial."""
    plain = [flat(lr=1e-3 * n, warmup_epochs=0.0) for n in range(1, 8)]
    given = [("default", config) for config in (*plain[:5], bloomer, *plain[5:])]
    search = start(root, 8, pruner, anchors=given)
    assert run_inline(search, root, run_curve)
    return search, TrialConfig.from_flat(bloomer).trial_id


def best(search):
    scores = {t: max(r["score"] for r in rows.values()) for t, rows in search.rows.items()}
    return max(scores, key=lambda trial: scores[trial])


@pytest.mark.parametrize("kind", BLOOMERS)
@pytest.mark.parametrize("pruner", ["asha", "promotion", "hyperband", "median"])
def test_it_survives_to_its_end_and_wins(tmp_path, kind, pruner):
    settings, horizon = BLOOMERS[kind]
    bloomer = flat(**{"warmup_epochs": 0.0, **settings})
    assert pacing_horizon(TrialConfig.from_flat(bloomer)) == horizon
    search, trial = searched(tmp_path, bloomer, pruner)
    assert search.results[trial].status == "completed"
    assert best(search) == trial
    assert all(trial not in rung for epoch, rung in search.pruner.rungs.items() if epoch < horizon)


@pytest.mark.parametrize("kind", BLOOMERS)
@pytest.mark.parametrize("pruner", ["asha", "median"])
def test_a_rule_that_knows_no_horizon_stops_it(tmp_path, monkeypatch, kind, pruner):
    """The twin: what the rule above is worth."""
    monkeypatch.setattr(core, "pacing_horizon", lambda config: 0)
    settings, horizon = BLOOMERS[kind]
    search, trial = searched(tmp_path, flat(**{"warmup_epochs": 0.0, **settings}), pruner)
    judged = [rung for epoch, rung in search.pruner.rungs.items() if trial in rung]
    assert judged[0][trial] == min(judged[0].values())
    assert search.results[trial].status == "stopped"
    assert search.results[trial].epoch < horizon
    assert best(search) != trial
