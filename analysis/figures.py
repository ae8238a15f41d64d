"""All figures of the page, each with the section it belongs to, as HTML."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.contributions import Contribution
from analysis.corrections import After
from analysis.facts import Calls, unit_scores
from analysis.findings import Findings
from analysis.importance import Importance
from trainables import metrics

if TYPE_CHECKING:
    import plotly.graph_objects as go

UNWANTED = ["sendChartToCloud", "lasso2d", "select2d"]  # the first would publish the data


@dataclass(frozen=True)
class Drawing:
    """A figure, or the reason why there is none."""

    section: str
    markup: str
    missing: str = ""


def of_search(findings: Findings) -> Iterator[Drawing]:
    """How trials did, what rungs and models cost."""
    from analysis import costplots, costs, plots

    yield _drawn("curves", plots.learning_curves(findings), "no trial has finished an epoch")
    yield _drawn("curves", costplots.rungs(findings), "no trial has reached a rung")
    yield _drawn("scores", plots.score_by_trial(findings), "no trial has a score")
    yield _drawn("cost", costplots.score_by_hours(findings), "no trial has reported its time")
    latency = costplots.score_by_cost(findings, "latency_ms", "milliseconds an image")
    yield _drawn("cost", latency, "fewer than two trials have a latency on record")
    yield _drawn("cost", costplots.seconds_by_trial(findings), "no trial has reported its time")
    found = costs.front(findings.board)
    if found.names:
        yield _drawn("goals", costplots.front(found), found.missing)


def of_settings(
    findings: Findings, found: Importance, techniques: list[Contribution]
) -> Iterator[Drawing]:
    """What mattered, and how."""
    from analysis import settingplots, techniqueplots

    yield _drawn("importance", settingplots.importances(found), found.note)
    for figure in settingplots.effects(findings, found):
        yield _drawn("importance", figure, "")
    parallel = settingplots.parallel_coordinates(findings, found)
    yield _drawn("parallel", parallel, "fewer than two trials with a score, or no setting varied")
    few = "no two options of a technique have five ended trials each"
    yield _drawn("techniques", techniqueplots.forest(techniques), few)


def of_ensemble(findings: Findings) -> Iterator[Drawing]:
    """Its weights, how members differ, what accuracy costs."""
    from analysis import memberplots

    yield _drawn("weights", memberplots.members(findings), "the ensemble is one trial")
    if (apart := memberplots.disagreement(findings)) is not None:
        yield _drawn("weights", apart, "")
    missing = "the trials have no latency on record, or too few images to score them"
    yield _drawn("front", memberplots.front(findings), missing)


def of_answers(findings: Findings, calls: Calls) -> Iterator[Drawing]:
    """Classes, action units and confidence of those that are compared."""
    from analysis import classplots

    names, labels = findings.board.class_names, findings.board.votes.labels
    for who, (probs, _) in calls.items():
        if who != "baseline" or len(calls) == 1:
            counts = metrics.confusion(labels, probs.argmax(1), len(names))
            yield _drawn("confusion", classplots.confusion(counts, names, f"Confusion, {who}"), "")
    if calls:
        said = {who: probs.argmax(1) for who, (probs, _) in calls.items()}
        yield _drawn("classes", classplots.class_recalls(findings, said), "")
        sure = {who: probs for who, (probs, _) in calls.items()}
        yield _drawn("reliability", classplots.reliability(labels, sure), "")
    scores = {w: f1 for w, f1 in unit_scores(findings, calls).items() if w != "baseline"}
    why = "no action units to score: the data has none, or the model has no head for them"
    yield _drawn("units", classplots.au_scores(findings, scores), why)


def of_corrections(after: Mapping[str, tuple[After | None, str]]) -> Iterator[Drawing]:
    """What can be done after training."""
    from analysis import classplots

    for who, (found, _) in after.items():
        if found is not None and (figure := classplots.adjustment_curve(found, who)):
            yield _drawn("after", figure, "")


def _drawn(section: str, figure: "go.Figure | None", missing: str) -> Drawing:
    if figure is None:
        return Drawing(section, "", missing)
    config = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": UNWANTED}
    markup = figure.to_html(full_html=False, include_plotlyjs=False, config=config)
    return Drawing(section, markup)
