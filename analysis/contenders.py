"""Who is scored on the sealed test split, and what they say of its images; no label is read here.

S seeds, N images, K classes, A action units. What validation chose is taken as it would be put to
use: the ensemble with its temperatures and shift, the best single trial as trained and with the
correction that `posthoc.taken` names. All that has a parameter was fitted on validation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis import ensemble as ens
from analysis import posthoc, record
from analysis.board import Board
from analysis.corrections import correct, known_prior
from analysis.findings import Findings
from analysis.groups import folds_of
from analysis.votes import Ids, Votes, joined, read_votes
from trainables.metrics import Floats
from trainables.store import RunStore

CORRECTED = "best, corrected"
OTHER = "other ensemble"
Said = tuple[Floats, Floats]  # class (N, K) and AU (N, A) probabilities


@dataclass(frozen=True)
class Contender:
    """What a configuration says of the test images, once for each of its seeds."""

    probs: Floats  # (S, N, K)
    aus: Floats  # (S, N, A); NaN: no AU head


@dataclass(frozen=True)
class Field:
    """All who are scored, by name, and what is to be said of them."""

    ids: Ids  # of the images
    contenders: Mapping[str, Contender]
    notes: tuple[str, ...]
    missing: tuple[str, ...]  # who cannot be scored, and why
    roots: tuple[Path, ...] = ()  # further runs that take part


def contenders(findings: Findings, other: Path | None = None) -> Field:
    """What was chosen on validation and, if given, the ensemble of the file `other`.

    Raises ValueError where there are no test predictions at all, or the file does not fit.
    """
    votes = _votes(findings)
    field = _trained(findings, votes)
    if "best single" in field.contenders:
        field = _with_corrected(field, findings)
    return field if other is None else _with_other(field, findings.board, other)


def _votes(findings: Findings) -> Votes:
    board = findings.board
    wanted = {trial for own in _chosen(findings).values() for weights in own for trial in weights}
    records = [board.record(trial) for trial in sorted(wanted)]
    votes = read_votes(board.run, records, len(board.class_names), "test", board.folds)
    if not votes.trials:
        reasons = "; ".join(f"{t}: {why}" for t, why in sorted(votes.problems.items()))
        raise ValueError(f"no test predictions to score ({reasons or 'no trial was chosen'})")
    return votes


def _chosen(findings: Findings) -> dict[str, list[dict[str, float]]]:
    """The weights of trials of each contender, once for each of its seeds."""
    ensemble, out = findings.ensemble, dict[str, list[dict[str, float]]]()
    for who, trial in (("baseline", findings.baseline), ("best single", findings.best)):
        if trial:
            out[who] = [{seed: 1.0} for seed in seeds_of(findings.board, trial)]
    if ensemble and (list(ensemble.members) != [findings.best] or ensemble.shift):
        out["ensemble"] = [dict(ensemble.members)]
    if ensemble and len(ensemble.top) > 1:
        out[f"average of best {len(ensemble.top)}"] = [dict.fromkeys(ensemble.top, 1.0)]
    return out


def seeds_of(board: Board, trial: str) -> list[str]:
    """The trial and those that differ from it in the seed alone, as the leaderboard averages them.

    Those without validation predictions are no part of its row.
    """
    return [seed for seed in board.repeats(trial) if seed in board.votes.trials]


def _trained(findings: Findings, votes: Votes) -> Field:
    found, missing, notes = dict[str, Contender](), list[str](), list[str]()
    for who, own in _chosen(findings).items():
        absent = sorted({trial for weights in own for trial in weights} - set(votes.trials))
        if absent:
            why = "; ".join(f"trial {t}: {votes.problems.get(t, 'missing')}" for t in absent)
            missing.append(f"{who} is not scored ({why})")
        elif findings.ensemble and who == "ensemble":
            found[who] = _contender([ens.predict(findings.ensemble, votes)])
        else:
            found[who] = _contender([ens.average(votes, weights) for weights in own])
            if len(own) > 1:
                notes.append(f"{who} is a configuration of {len(own)} seeds: means over them")
    return Field(votes.ids, found, tuple(notes), tuple(missing))


def _contender(said: Sequence[Said]) -> Contender:
    return Contender(np.stack([probs for probs, _ in said]), np.stack([aus for _, aus in said]))


def _with_corrected(field: Field, findings: Findings) -> Field:
    """The field with the best single after its correction, each seed with parameters of its own."""
    board, plain = findings.board, field.contenders["best single"]
    prior, probs, how = known_prior(board.train_counts), list[Floats](), ""
    for trial in seeds_of(board, str(findings.best)):
        found, problem = posthoc.of_trial(board, trial)
        models, gone = posthoc.read_models(board, trial, "test", field.ids)
        if found is None or not models:
            why = f"{CORRECTED} is not scored ({problem or gone})"
            return replace(field, missing=(*field.missing, why))
        row = posthoc.taken(found) if not how else posthoc.named(found, how)
        how = row.name
        probs.append(np.exp(correct(how, models, prior, row.chosen)).astype(np.float32))
        told = posthoc.described(row)
    order = list(field.contenders)
    order.insert(order.index("best single") + 1, CORRECTED)
    every = {**field.contenders, CORRECTED: Contender(np.stack(probs), plain.aus)}
    note = f"{CORRECTED} is the best single with {told}, chosen on validation"
    return replace(field, contenders={who: every[who] for who in order}, notes=(*field.notes, note))


def _with_other(field: Field, board: Board, path: Path) -> Field:
    """The field with the ensemble of a file, whose members may stand in several runs."""
    said = record.read(path)
    record.check(said, path, board.meta, board.run.root)
    names = [source["name"] for source in said["sources"]]
    places = [((path.parent / s["run"]).resolve(), str(s["trial"])) for s in said["sources"]]
    parts = [_member(*place, board, field.ids) for place in places]
    votes = replace(joined(parts, len(board.class_names)), trials=tuple(names))
    mixed = Contender(*(values[None] for values in ens.predict(_as_mixture(said), votes)))
    roots = {root for root, _ in places} - {board.run.root.resolve()}
    note = f"{OTHER} is '{path}': {said['method']}"
    if roots:
        note += f", of {len({root for root, _ in places})} runs; the look is in all their ledgers"
    return replace(
        field,
        contenders={**field.contenders, OTHER: mixed},
        notes=(*field.notes, note),
        roots=tuple(sorted(roots)),
    )


def _member(root: Path, trial: str, board: Board, ids: Ids) -> Votes:
    """What a trial of any run says of the test images. Raises ValueError for other images."""
    run = RunStore.open(root)
    folds = folds_of(run.records())
    own = next((own for own in folds.values() if any(r.id == trial for r in own)), None)
    if own is None:
        raise LookupError(f"run '{root}' has no trial '{trial}'")
    votes = read_votes(run, own[:1], len(board.class_names), "test", folds)
    if votes.ids != ids:
        why = votes.problems.get(own[0].id, "they are of other images")
        raise ValueError(f"the test predictions of trial {trial} of '{root}' do not fit: {why}")
    return votes


def _as_mixture(said: Mapping[str, Any]) -> ens.Mixture:
    return ens.Mixture(
        {s["name"]: float(s["weight"]) for s in said["sources"]},
        {s["name"]: float(s["temperature"]) for s in said["sources"]},
        tuple(map(tuple, said.get("coefficients") or ())),
        tuple(said.get("shift") or ()),
    )
