"""What the best of a search is worth, four times over: each line has less to do with the choice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis import confirmation, final
from analysis.comparisons import mcnemar
from analysis.final import Look
from analysis.findings import Findings
from analysis.statistics import Estimate, bracketed
from analysis.tables import cell


@dataclass(frozen=True)
class Line:
    """An estimate and what it rests on; `score` is words where it has not been made."""

    what: str
    score: str
    note: str


def side_by_side(findings: Findings, look: Look | None) -> list[Line]:
    """Naive, corrected, confirmed, and test; the last only where it was asked for."""
    if findings.best is None:
        return []
    root, row = findings.board.run.root, findings.row(findings.best)
    lines = [
        Line("naive best", cell(row, "score"), "on the images that chose it"),
        Line(
            "corrected best",
            bracketed(findings.corrected),
            "BBC-CV: on images left out of the choice",
        ),
        _confirmed(confirmation.read_facts(root)),
    ]
    looks = final.looks(root)
    seen = f"{looks} look{'' if looks == 1 else 's'} so far (test_ledger.jsonl)"
    if look is None or "best single" not in look.scores:
        return [*lines, Line("test", "sealed", f"{seen}; --final looks")]
    return [*lines, Line("test", bracketed(look.scores["best single"]["score"]), seen)]


def _confirmed(facts: Mapping[str, Any] | None) -> Line:
    if facts is None:
        return Line("confirmed", "–", "not done: python -m search.confirm RUN")
    row = confirmation.confirmed(facts)
    how = f"{row['role']}, {facts['seeds']} fresh seeds, {facts['folds']} fresh folds"
    score = Estimate(*(row["score"][name] for name in ("value", "low", "high")))
    return Line("confirmed", bracketed(score), how)


def sentences(findings: Findings) -> list[str]:
    """The verdict of the confirmation with its tests, and McNemar's test in the run itself."""
    lines = []
    if (facts := confirmation.read_facts(findings.board.run.root)) is not None:
        lines.append(f"Confirmation: {facts['verdict']}{_tests(facts)}")
    if findings.best and findings.baseline and findings.best != findings.baseline:
        votes = findings.board.votes
        right = votes.predicted == votes.labels
        own, base = (right[votes.row(t)] for t in (findings.best, findings.baseline))
        test = mcnemar(own, base)
        lines.append(
            f"Of {len(own)} images the best alone calls {test.gained} rightly, and the baseline "
            f"alone {test.lost} (McNemar's exact test of accuracy: "
            f"p {test.p:.2g}, not corrected for the choice of the best)."
        )
    return lines


def _tests(facts: Mapping[str, Any]) -> str:
    row = confirmation.confirmed(facts)
    if row["lead"] is None:
        return ""
    told = [f"Holm-corrected p {row['p holm']:.2g}"] if row["p holm"] is not None else []
    if row["folds"] is not None and row["folds"]["p"] is not None:
        told.append(f"over single folds, by Nadeau and Bengio, p {row['folds']['p']:.2g}")
    if row["mcnemar"] is not None:
        told.append(f"McNemar's exact test of accuracy p {row['mcnemar']['p']:.2g}")
    return f" ({row['role']} against the {facts['reference']}: {'; '.join(told)})" if told else ""
