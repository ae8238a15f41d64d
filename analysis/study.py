"""Everything that the page, Markdown and tables of a run show, computed once."""

from collections.abc import Mapping
from dataclasses import dataclass

from analysis import facts, posthoc
from analysis.contributions import Contribution, contributions
from analysis.corrections import After
from analysis.facts import Calls
from analysis.findings import Findings
from analysis.importance import Importance, importance, target_of
from analysis.sheets import Pictures


@dataclass(frozen=True)
class Study:
    """The findings of a run and what explains them."""

    findings: Findings
    settings: tuple[str, ...]  # that vary
    importance: Importance
    techniques: list[Contribution]
    calls: Calls
    after: Mapping[str, tuple[After | None, str]]  # who -> corrections, or why there are none
    pictures: Pictures


def study(findings: Findings, pictures: Pictures | None = None) -> Study:
    """Look into the findings of a run."""
    board, table = findings.board, findings.table
    settings = board.varying
    target = target_of(board, table)
    baseline = board.record(findings.baseline).config if findings.baseline else {}
    return Study(
        findings,
        tuple(settings),
        importance(table, settings, target),
        contributions(table, settings, target, baseline),
        facts.predictions(findings),
        posthoc.of_findings(findings),
        pictures or Pictures(missing="not asked for: --pictures makes them"),
    )
