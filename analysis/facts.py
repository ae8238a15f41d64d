"""The tables of a report, besides the leaderboard: in words, for the page and for Markdown."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis import ensemble as ens
from analysis import posthoc, statistics
from analysis.contributions import Contribution
from analysis.corrections import After
from analysis.costs import wasted
from analysis.findings import Findings
from analysis.statistics import signed
from trainables import metrics
from trainables.metrics import MIN_SUPPORT

Calls = Mapping[str, tuple[NDArray[Any], NDArray[Any]]]  # who -> class (N, K), AU (N, A) probs
TAKEN: tuple[tuple[str, str, Callable[[float], str]], ...] = (  # in run.json, label, how it is told
    ("seconds", "minutes on the clock", lambda value: f"{value / 60:.1f}"),
    ("worker_hours", "worker-hours", "{:.3g}".format),
    ("gpu_hours", "GPU-hours", "{:.3g}".format),
    ("epochs", "epochs", "{:.0f}".format),
    ("bytes", "disk, MiB", lambda value: f"{value / 2**20:.1f}"),
)
MOST_FAILURES = 40  # rows
CONFUSED = 8  # pairs of classes
FEW = "too few to conclude"


def predictions(findings: Findings) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """(class, AU) probabilities of the baseline, the best single and the ensemble."""
    votes = findings.board.votes.full
    out = {}
    if findings.baseline and findings.baseline != findings.best:
        out["baseline"] = ens.average(votes, {findings.baseline: 1.0})
    if findings.best:
        out["best single"] = ens.average(votes, {findings.best: 1.0})
    if findings.ensemble and len(findings.ensemble.members) > 1:
        out["ensemble"] = ens.predict(findings.ensemble, votes)
    return out


def unit_scores(findings: Findings, calls: Calls) -> dict[str, NDArray[np.float64]]:
    """F1 per action unit of those that have a head for them."""
    aus = findings.board.votes.aus
    return {
        who: metrics.au_f1(aus, said)
        for who, (_, said) in calls.items()
        if said.size and not np.isnan(said).any()
    }


def share(hits: int, of: int) -> str:
    """A share with its 95 % Wilson interval."""
    low, high = statistics.wilson(np.array(hits), np.array(of))
    return f"{hits / of:.2f} [{low:.2f}, {high:.2f}]" if of else "–"


def classes(findings: Findings, calls: Calls) -> dict[str, Any]:
    """Recall with its interval per class, for each of those that are compared; the majority's."""
    board, rows = findings.board, []
    majority = _majority_class(findings)
    called = [probs.argmax(1) for probs, _ in calls.values()]
    for k, name in enumerate(board.class_names):
        counted = int(board.support[k])
        right = board.votes.labels == k
        cells = [share(int(((own == k) & right).sum()), counted) for own in called]
        if majority is not None:
            cells.append(f"{float(k == majority):.2f}" if counted else "–")
        rows.append(
            {"name": name, "support": counted, "cells": cells, "few": counted < MIN_SUPPORT}
        )
    header = [*calls, *(["always the commonest class"] if majority is not None else [])]
    return {"header": header, "rows": rows if calls else []}


def _majority_class(findings: Findings) -> int | None:
    counts = findings.board.train_counts
    return None if findings.majority is None else int(np.argmax(counts))


def units(findings: Findings, calls: Calls) -> dict[str, Any]:
    """F1 per action unit, beside that of always saying that it is shown."""
    board, scores = findings.board, unit_scores(findings, calls)
    always = metrics.au_f1(board.votes.aus, np.ones(board.votes.aus.shape, np.float32))
    support = (board.votes.aus == 1).sum(0)
    rows = [
        {
            "name": name,
            "support": int(support[a]),
            "few": bool(support[a] < MIN_SUPPORT),
            "cells": [
                "–" if np.isnan(f1[a]) else f"{f1[a]:.3f}" for f1 in (*scores.values(), always)
            ],
        }
        for a, name in enumerate(board.au_names)
    ]
    return {"header": [*scores, "always shown"], "rows": rows if scores else []}


def confused(findings: Findings, calls: Calls) -> dict[str, Any]:
    """The pairs of classes that the last of those compared takes for each other most often."""
    if not calls:
        return {"who": "", "rows": []}
    who, (probs, _) = list(calls.items())[-1]
    board = findings.board
    labels, said = board.votes.labels, probs.argmax(1)
    wrong = said != labels
    pairs, counts = np.unique(np.stack([labels, said], 1)[wrong], axis=0, return_counts=True)
    rows = []
    for pair in np.argsort(-counts, kind="stable")[:CONFUSED]:
        names = [board.class_names[k] for k in pairs[pair]]
        count, of = int(counts[pair]), int(board.support[pairs[pair][0]])
        rows.append([*names, str(count), share(count, of)])
    return {"who": who, "rows": rows}


def techniques(found: Sequence[Contribution]) -> list[dict[str, Any]]:
    """What each technique goes with, as a table."""
    return [
        {
            "name": f"{row.setting}: {row.option}",
            "against": row.against or "not set",
            "trials": f"{row.trials} / {row.others}",
            "plain": signed(row.plain),
            "adjusted": signed(row.adjusted),
        }
        for row in found
    ]


def outcome(findings: Findings) -> Iterator[tuple[str, str, str]]:
    """What the search was forecast to take, and what it took; nothing where neither is known."""
    meta = findings.board.meta
    then, now = meta.get("forecast") or {}, meta.get("spent") or {}
    for name, label, shown in TAKEN:
        value, estimate = now.get(name), then.get(name)
        if isinstance(estimate, dict):
            low, middle, high = (shown(estimate[key]) for key in ("low", "middle", "high"))
            text = f"{middle} ({low} to {high})"
        else:
            text = "–" if estimate is None else shown(estimate)
        if value or (estimate and text != f"{shown(0)} ({shown(0)} to {shown(0)})"):
            yield label, text, "–" if value is None else shown(value)
    lost = wasted(findings.board)
    if findings.board.records:
        yield "failed trials", "–", f"{lost['count']} of {len(findings.board.records)}"
    if lost["hours"]:
        yield "hours of training lost in them", "–", f"{lost['hours']:.3g}"


def corrections(who: str, found: After | None, missing: str) -> dict[str, Any]:
    """The corrections of a trial after its training, as a table."""
    rows = [
        {
            "name": row.name,
            "chosen": posthoc.told(row),
            "cells": [f"{row.scores[name]:.3f}" for name in posthoc.SHOWN],
            "gain": signed(row.gap),
        }
        for row in (found.rows if found else ())
    ]
    words = posthoc.sentence(found) if found else ""
    return {"who": who, "rows": rows, "words": words, "missing": missing}


def failures(findings: Findings) -> list[dict[str, str]]:
    """The trials that failed or of which something is to be said."""
    out = []
    noted = findings.table[findings.table["note"] != ""].sort_values("index")
    for _, row in noted.head(MOST_FAILURES).iterrows():
        lines = [line for line in str(row["note"]).splitlines() if line.strip()]
        out.append(
            {
                "trial": str(row["trial"]),
                "status": str(row["status"]),
                "short": lines[-1].strip()[:300],
                "long": str(row["note"]) if len(lines) > 1 else "",
            }
        )
    if len(noted) > MOST_FAILURES:
        more = f"and {len(noted) - MOST_FAILURES} more: the column note of leaderboard.csv"
        out.append({"trial": "…", "status": "", "short": more, "long": ""})
    return out
