"""The ladder in sentences: what helped, what did not help as plainly, and what none of it says."""

from collections.abc import Iterator

import numpy as np

from analysis.ablation import AS_LONG, DEARER
from analysis.ladder import NAMES, Ladder, Row
from analysis.seeds import Spread, detectable
from analysis.statistics import signed

SURE = 0.05  # a corrected p-value below it is told as a difference


def words(ladder: Ladder) -> list[str]:
    """The ablation in sentences, the most important first."""
    return [
        *_what(ladder),
        *_verdicts(ladder),
        *_limits(ladder),
        *_fairness(ladder),
    ]


def _what(ladder: Ladder) -> Iterator[str]:
    plan, data, meta = ladder.plan, ladder.board.meta["data"], ladder.board.meta
    if data.get("is_synthetic"):
        yield (
            "SYNTHETIC faces: these numbers say what helps on rendered faces, and nothing about "
            "photographs."
        )
    sizes = data.get("sizes") or {}
    yield (
        f"Size: {data.get('name', '?')} at {data.get('image_size', '?')} px, trained on "
        f"{sizes.get('train', '?')} images for {meta.get('epochs', '?')} epochs, scored on "
        f"{len(ladder.board.votes.labels)} validation images; {len(plan.arms)} configurations "
        f"under seeds {plan.seeds[0]} to {plan.seeds[-1]}, none of which the search had used."
    )
    missing = [
        f"{arm.role} {0 if (row := ladder.row(arm.role)) is None else len(row.seeds)}"
        for arm in plan.arms
        if (row := ladder.row(arm.role)) is None or len(row.seeds) < len(plan.seeds)
    ]
    if missing:
        yield f"Not complete, of {len(plan.seeds)} seeds there are: {', '.join(missing)}."


def _verdicts(ladder: Ladder) -> Iterator[str]:
    """What was better than the baseline; what helped, what did not, and what did harm."""
    for row in ladder.compared:
        if row.arm.kind in ("control", "rung"):
            yield f"{_capital(row.arm.role)} {_against_baseline(row)}: {gap_text(row)}."
    yield from _over_control(ladder)
    parts: dict[str, list[Row]] = {"helped": [], "did not help": [], "did harm": []}
    for row in ladder.compared:
        if row.arm.kind == "without" and row.gap is not None:
            sure = row.p < SURE
            parts[
                "did not help" if not sure else "helped" if row.gap.value < 0 else "did harm"
            ].append(row)
    told = {
        "helped": "Helped (without it the winner is worse)",
        "did not help": "Did not help (without it the winner is as good, as far as this can tell)",
        "did harm": "Did harm (without it the winner is better)",
    }
    for verdict, rows in parts.items():
        if rows:
            listed = "; ".join(
                f"{r.arm.role.removeprefix('without ')} ({r.arm.change}) {gap_text(r)}"
                for r in rows
            )
            yield f"{told[verdict]}: {listed}."
        elif verdict != "did harm" and any(r.arm.kind == "without" for r in ladder.compared):
            yield f"{told[verdict]}: nothing."


def _over_control(ladder: Ladder) -> Iterator[str]:
    """Whether the winner is more than longer training."""
    gap, p = ladder.over_control, ladder.over_control_p
    if gap is None:
        return
    verdict = (
        "is not better than the baseline trained as long, as far as this can tell"
        if p >= SURE
        else "is better than the baseline trained as long, so its lead is not its length alone"
        if gap.value > 0
        else "is worse than the baseline trained as long"
    )
    yield f"The winner ({ladder.plan.winner}) {verdict}: {_gap_text(gap, p)}."


def _against_baseline(row: Row) -> str:
    assert row.gap is not None
    if row.p >= SURE:
        return "is not better than the baseline, as far as this can tell"
    return "is better than the baseline" if row.gap.value > 0 else "is worse than the baseline"


def gap_text(row: Row) -> str:
    """A difference with its interval and corrected p-value."""
    assert row.gap is not None
    return _gap_text(row.gap, row.p)


def _gap_text(gap: Spread, p: float) -> str:
    told = "" if np.isnan(p) else f", p {p:.3f}" if p >= 0.001 else ", p < 0.001"
    return f"{signed(gap)}{told}"


def _limits(ladder: Ladder) -> Iterator[str]:
    """The least difference that could be seen, and how far there is to go."""
    compared = [row.gap for row in ladder.compared]
    gaps = [gap for gap in (*compared, ladder.over_control) if gap is not None and gap.error > 0]
    if gaps:
        gap = sorted(gaps, key=lambda g: g.error)[len(gaps) // 2]
        yield (
            f"Smallest true difference that such a comparison finds four times of five: "
            f"{detectable(gap):.3f} by itself, {detectable(gap, len(gaps)):.3f} at Holm's "
            f"strictest step of {len(gaps)}. Smaller effects may be there and stay unseen."
        )
    top = ladder.row(ladder.plan.winner)
    for name, known in ladder.ceiling.items():
        if name == ladder.measure and top is not None:
            share = top.measures[name].value / known if known else float("nan")
            yield (
                f"Bayes ceiling {known:.3f} in {NAMES.get(name, name)}: the winner has {share:.0%} "
                "of it."
            )


def _fairness(ladder: Ladder) -> Iterator[str]:
    """What the comparison does not say."""
    budgets = ladder.plan.budgets
    listed = "; ".join(f"{b.space}: {b.trials} trials, {b.epochs} epochs" for b in budgets)
    yield f"Budget of each search: {listed}.{_unequal(ladder)}"
    yield from _costs(ladder)
    yield (
        "The baseline has its space's default optimiser settings and was tuned by nobody: part of "
        "any lead over it is tuning (see the optimiser settings, where they were switched off)."
    )
    yield (
        f"The winner ({ladder.plan.winner}) was chosen on these very validation images: fresh "
        "seeds take the luck of its seed out of the comparison, not that of the images, so its "
        "lead is still somewhat too large, and what it uses looks somewhat too good. The test "
        "split stays sealed."
    )
    if better := _ahead(ladder):
        yield f"With fresh seeds {better} scores higher than the winner, who was chosen with one."
    yield from (f"{_capital(note)}." for note in ladder.plan.notes)
    for row in ladder.rows:
        for failure in row.failures:
            yield f"Failed, {row.arm.role}, {failure}"


def _costs(ladder: Ladder) -> Iterator[str]:
    """Which rungs train longer than the baseline, and what tells length from technique."""
    dear = [row for row in ladder.rows if row.arm.kind == "rung" and row.cost >= DEARER]
    if not dear:
        return
    listed = ", ".join(f"{row.arm.role} {row.cost:.1f}" for row in dear)
    control = ladder.row(AS_LONG)
    yield (
        f"Not of equal cost, in times the baseline's training: {listed}. Part of such a lead is "
        + (
            f"longer training: compare with '{AS_LONG}', on the same images again."
            if control is not None
            else "longer training, which nothing here tells apart."
        )
    )


def _ahead(ladder: Ladder) -> str:
    """The rung with the highest mean over its fresh seeds, if that is not the winner."""
    rungs = [row for row in ladder.rows if row.arm.kind == "rung"]
    best = max(rungs, key=lambda row: row.measures[ladder.measure].value, default=None)
    return "" if best is None or best.arm.role == ladder.plan.winner else best.arm.role


def _unequal(ladder: Ladder) -> str:
    """A warning where the searches had different budgets."""
    for values in zip(*((b.trials, b.epochs) for b in ladder.plan.budgets), strict=True):
        if min(values) * 1.25 < max(values):
            return (
                " NOT an equal budget: the run that searched more had more chances, and part of "
                "its lead may be that."
            )
    return " That is an equal budget, to within a quarter." if len(ladder.plan.budgets) > 1 else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
