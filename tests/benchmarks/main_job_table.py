"""The tables of main_job.py. A target is reached at the first row that is as good."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]
Rows = Sequence[Record]
TIMES = (30, 45, 60, 90, 120, 180, 240, 360)  # seconds
AIMS = {"stock": 1 / 2, "reused": 1 / 2, "random": 1 / 3}  # peer -> share of its time


def best(rows: Rows) -> float:
    """The best score at any epoch."""
    return max((row["score"] for row in rows), default=-math.inf)


def last_row(record: Record) -> float:
    """When the last epoch of a run ended."""
    return max(float(row["t"]) for row in record["rows"])


def first_step(record: Record) -> float:
    """When training began: the first row's time less what its epoch took."""
    return min(float(row["t"] - row["seconds"]) for row in record["rows"])


def reached(record: Record, target: float) -> float | None:
    """Seconds until a score was there; None where it never was."""
    return min((float(row["t"]) for row in record["rows"] if row["score"] >= target), default=None)


def first_trials(record: Record) -> Rows:
    """The rows of as many trials as were asked for, without those of a run that went on."""
    trials = list(dict.fromkeys(row["trial"] for row in record["rows"]))[: record["trials"]]
    return [row for row in record["rows"] if row["trial"] in trials]


def compare(ours: Record, peer: Record) -> Record:
    """One seed against one peer; a ratio that was not reached is None, `above` its lower bound."""
    target = best(peer["rows"])
    theirs, own = reached(peer, target), reached(ours, target)
    assert theirs is not None
    peer_start, own_start = first_step(peer), first_step(ours)
    is_there = own is not None
    until = own if own is not None else last_row(ours)
    ratio, bare = until / theirs, (until - own_start) / (theirs - peer_start)
    at_end = [row for row in ours["rows"] if row["t"] <= last_row(peer)]
    return {
        "seed": ours["seed"],
        "target": target,
        "peer_reached": theirs,
        "peer_ended": last_row(peer),
        "peer_start": peer_start,
        "ours_reached": own,
        "ours_start": own_start,
        "ours_watched": last_row(ours),
        "ratio": ratio if is_there else None,
        "ratio_without_start": bare if is_there else None,
        "above": None if is_there else ratio,
        "above_without_start": None if is_there else bare,
        "ours_best_when_peer_ended": best(at_end) if at_end else None,
    }


def middle(values: Sequence[float | None]) -> float | None:
    """The median, what was not reached counting as infinite; None where the median is not."""
    found = statistics.median([math.inf if value is None else value for value in values])
    return found if math.isfinite(found) else None


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Every seed that both have, for each peer; and what each run came to."""
    of = {(r["method"], r["seed"]): r for r in records}
    peers: dict[str, Any] = {}
    for peer in AIMS:
        seeds = sorted(s for m, s in of if m == peer and ("ours", s) in of)
        pairs = [compare(of["ours", s], of[peer, s]) for s in seeds]
        if pairs:
            peers[peer] = {
                "aim": AIMS[peer],
                "seeds": pairs,
                "reached": sum(p["ratio"] is not None for p in pairs),
                "median": middle([p["ratio"] for p in pairs]),
                "median_without_start": middle([p["ratio_without_start"] for p in pairs]),
            }
    return {"runs": [_run(of[k]) for k in sorted(of)], "peers": peers, "anytime": anytime(of)}


def so_far(records: Sequence[Record], seconds: float) -> float:
    """The mean over runs of the best score until then, 0 where there was none."""
    tops = [best([row for row in r["rows"] if row["t"] <= seconds]) for r in records]
    return statistics.fmean(max(0.0, top) for top in tops)


def anytime(of: dict[tuple[str, int], Record]) -> dict[str, Any]:
    """By method, over the seeds that all have: mean best so far at times, and when it is there
    that the mean of each method ends with."""
    methods = dict.fromkeys(method for method, _ in of)
    common = sorted({seed for _, seed in of if all((m, seed) in of for m in methods)})
    runs = {m: [of[m, seed] for seed in common] for m in methods} if common else {}
    means = {method: _mean(own) for method, own in runs.items()}
    ends = {method: best(mean["rows"]) for method, mean in means.items()}
    return {
        "seeds": common,
        "at": {method: {t: so_far(own, t) for t in TIMES} for method, own in runs.items()},
        "end": ends,
        "reached": {
            method: {goal: reached(mean, end) for goal, end in ends.items()}
            for method, mean in means.items()
        },
    }


def _mean(records: Sequence[Record]) -> Record:
    """What the mean of the best so far comes to, as if it were a run."""
    times = sorted(row["t"] for record in records for row in record["rows"])
    return {"rows": [{"t": t, "score": so_far(records, t)} for t in times]}


def _run(record: Record) -> Record:
    rows = first_trials(record)
    names = ("method", "seed", "date", "commit", "cores", "load", "failed", "seconds")
    return {name: record[name] for name in names} | {
        "trials": len({row["trial"] for row in rows}),
        "epochs": len(rows),
        "best": best(rows),
        "start": first_step(record),
    }


def markdown(tables: dict[str, Any]) -> str:
    """All that is on record, for a README."""
    lines = [
        "| run | seed | trials | failed | epochs | best score | first step at, s | ended at, s "
        "| load before |",
        "|--|--|--|--|--|--|--|--|--|",
    ]
    lines += [
        f"| {r['method']} | {r['seed']} | {r['trials']} | {r['failed']} | {r['epochs']} "
        f"| {r['best']:.4f} | {r['start']:.1f} | {r['seconds']:.0f} | {r['load']:g} |"
        for r in tables["runs"]
    ]
    for name, peer in tables["peers"].items():
        lines += ["", f"**ours against {name}**: seconds until ours has the best score of {name}"]
        lines += ["", *_pairs(name, peer)]
    return "\n".join([*lines, "", *_anytime(tables["anytime"])])


def _anytime(found: dict[str, Any]) -> list[str]:
    goals = list(found["end"])
    lines = [
        f"**the best so far**, mean over {len(found['seeds'])} seeds, at seconds; and when it is "
        "what the mean of each ends with",
        "",
        f"| run | {' | '.join(map(str, TIMES))} | {' | '.join(f'end of {g}' for g in goals)} |",
        "|--" * (1 + len(TIMES) + len(goals)) + "|",
    ]
    for method, scores in found["at"].items():
        times = [found["reached"][method][goal] for goal in goals]
        cells = [f"{scores[t]:.3f}" for t in TIMES]
        cells += ["never" if t is None else f"{t:.0f} s" for t in times]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _pairs(name: str, peer: Record) -> list[str]:
    lines = [
        f"| seed | target | {name} had it at | and ended at | ours had it at | share of its time "
        f"| without start-up | ours, when {name} had ended |",
        "|--|--|--|--|--|--|--|--|",
    ]
    for p in peer["seeds"]:
        had = p["ours_reached"]
        when = f"never, watched {p['ours_watched']:.0f} s" if had is None else f"{had:.1f}"
        then = p["ours_best_when_peer_ended"]
        lines.append(
            f"| {p['seed']} | {p['target']:.4f} | {p['peer_reached']:.1f} | {p['peer_ended']:.1f} "
            f"| {when} | {_share(p['ratio'], p['above'])} "
            f"| {_share(p['ratio_without_start'], p['above_without_start'])} "
            f"| {'nothing' if then is None else format(then, '.4f')} |"
        )
    n = len(peer["seeds"])
    lines.append(
        f"| median | | | | reached {peer['reached']} of {n} | {_share(peer['median'])} "
        f"| {_share(peer['median_without_start'])} | aim: {peer['aim']:.2f} |"
    )
    return lines


def _share(ratio: float | None, above: float | None = None) -> str:
    if ratio is not None:
        return f"{ratio:.2f}"
    return "not reached" if above is None else f"> {above:.2f}"
