"""An ensemble on the disk and in words: ensemble.json, ensemble_val.npz; no pickle.

ensemble.json holds all that using the ensemble takes: for each member its run (relative to the
folder of the file), trial, weight and temperature; stacking coefficients or the shift, if any;
the names of the classes and the fingerprint of the data. To use it: bring each member's
probabilities to its temperature, take their weighted mean (or the regression on the concatenated
log-probabilities and a one), and subtract the shift from the log-probabilities.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analysis.ensemble import Ensemble, predict
from analysis.statistics import bracketed
from analysis.votes import Votes
from trainables.store import Predictions, packed, replace_file, write_json

VERSION = 2


@dataclass(frozen=True)
class Origin:
    """Where the members come from."""

    members: Mapping[str, tuple[Path, str]]  # name -> (folder of the run, trial id)
    class_names: tuple[str, ...]
    fingerprint: str | None
    objective: str  # one of metrics.OBJECTIVES


def as_json(ensemble: Ensemble, folder: Path, origin: Origin) -> dict[str, Any]:
    """The form of ensemble.json; what is not known is null."""
    out: dict[str, Any] = _plain(asdict(ensemble))
    out["sources"] = [
        {
            "name": name,
            "run": os.path.relpath(origin.members[name][0].resolve(), folder.resolve()),
            "trial": origin.members[name][1],
            "weight": weight,
            "temperature": ensemble.temperatures[name],
        }
        for name, weight in ensemble.members.items()
    ]
    known = {
        "version": VERSION,
        "class_names": list(origin.class_names),
        "fingerprint": origin.fingerprint,
        "objective": origin.objective,
    }
    return known | out


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save(ensemble: Ensemble, votes: Votes, folder: Path, origin: Origin) -> None:
    """Write ensemble.json and the ensemble's predictions, ensemble_val.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "ensemble.json", as_json(ensemble, folder, origin))
    probs, au_probs = predict(ensemble, votes)
    said = Predictions(votes.ids, votes.labels, probs, votes.aus, au_probs)
    replace_file(folder / "ensemble_val.npz", packed(said))


def read(path: Path) -> dict[str, Any]:
    """What an ensemble.json holds.

    Raises FileNotFoundError where there is none, ValueError for a file that cannot be used.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no ensemble at '{path}': python -m analysis.report RUN makes it")
    try:
        said: dict[str, Any] = json.loads(path.read_text())
        version = said.get("version")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"'{path}' is not an ensemble.json ({error})") from error
    if version != VERSION or not said.get("sources"):
        raise ValueError(
            f"'{path}' is of version {version}, this program reads {VERSION}: make it "
            "again (python -m analysis.report RUN)"
        )
    return said


def check(said: Mapping[str, Any], path: Path, meta: Mapping[str, Any], root: Path) -> None:
    """Raises ValueError where the ensemble is of other data than the run."""
    for what in ("class_names", "fingerprint"):
        if said.get(what) != meta["data"].get(what):
            raise ValueError(f"'{path}' is of other data than run '{root}' ({what} differ)")


def told(ensemble: Ensemble) -> Iterator[str]:
    """What the command prints."""
    yield f"{ensemble.method} ({ensemble.note})" if ensemble.note else ensemble.method
    for name, estimate in ensemble.honest.items():
        if math.isfinite(estimate.value):
            yield f"  {name}: {bracketed(estimate)}"
    yield "methods: score on images that did not choose, behind the best, on those that did"
    for row in ensemble.table:
        mark = " <- chosen" if row.is_chosen else ""
        cost = f"  {row.latency_ms:.1f} ms" if math.isfinite(row.latency_ms) else ""
        honest = f"{row.crossfit:.3f}  {row.behind:.3f} ± {row.behind_se:.3f}"
        if not math.isfinite(row.crossfit):
            honest = "too few images to tell"
        yield f"  {row.method:18} {row.members:3}  {honest}  {row.optimistic:.3f}{cost}{mark}"
    best = [point for point in ensemble.front if point.is_best]
    if best:
        yield "front: milliseconds, score"
    for point in best:
        yield f"  {point.latency_ms:8.2f}  {point.score:.3f}  {point.method} of {point.members}"
    if len(ensemble.members) > 1:
        d = ensemble.diversity
        yield f"members disagree on {d.mean_disagreement:.1%} of images, mean Q {d.mean_q:.2f}"
    yield "members: weight, temperature"
    for trial, weight in ensemble.members.items():
        yield f"  {trial}  {weight:.3f}  {ensemble.temperatures[trial]:.2f}"
