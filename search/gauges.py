"""The search as Prometheus metrics, by `ray.util.metrics`; Ray puts `ray_` before their names.

`grafana.json` is a board over them. They live in the driver and go with it.
"""

from math import isfinite

from ray.util.metrics import Gauge

from search.core import Search
from search.monitor import counts
from search.outlook import Outlook

SET_SECONDS = 2.0  # Ray exports every ten
RATE_SECONDS = 60.0  # over which epochs per second are counted
TAGS = ("run", "space")
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {  # name -> meaning, own tags
    "fer_search_trials": ("Trials by state", ("state",)),
    "fer_search_best_score": ("Highest last score of a trial", ()),
    "fer_search_baseline_score": ("Last score of the baseline", ()),
    "fer_search_rung_trials": ("Trials that came to a rung, and that went on", ("rung", "what")),
    "fer_search_epochs": ("Epochs trained in the whole run", ()),
    "fer_search_epochs_per_second": ("Epochs trained per second of the last minute", ()),
    "fer_search_gpu_hours": ("GPU-hours of training in the whole run", ()),
    "fer_search_worker_hours": ("Hours of training, summed over workers", ()),
    "fer_search_failures": ("Failed trials", ()),
    "fer_search_seconds_left": ("Forecast of the time left; low and high hold 9 of 10", ("bound",)),
}


class Gauges:
    """An observer that shares the outlook of the table, which costs as much as all the rest.

    State: Ray's gauges, and how many epochs there were at recent moments.
    """

    def __init__(
        self,
        search: Search,
        run: str,
        space: str,
        gpus_per_trial: float,
        outlook: Outlook,
    ) -> None:
        self.search, self.gpus_per_trial = search, gpus_per_trial
        self.outlook, self.tally, self.clock = outlook, outlook.tally, outlook.clock
        self.tags = {"run": run, "space": space}
        self.gauges = {
            name: Gauge(name, description=meaning, tag_keys=(*TAGS, *own))
            for name, (meaning, own) in GAUGES.items()
        }
        self.moments: list[tuple[float, int]] = []  # clock and epochs
        self.set_at = -1e9

    def start(self) -> None:
        self._set()

    def update(self) -> None:
        """Set all gauges, at most every two seconds."""
        if self.clock() - self.set_at >= SET_SECONDS:
            self._set()

    def stop(self) -> None:
        self._set()

    def _set(self) -> None:
        self.set_at = self.clock()
        self.tally.follow(self.search)
        for name, tags, value in self.values():
            self.gauges[name].set(value, {**self.tags, **tags})

    def values(self) -> list[tuple[str, dict[str, str], float]]:
        """What every gauge is to show: its name, its own tags, its value."""
        tally, hours = self.tally, self.tally.seconds / 3600
        states = counts(self.search, tally)
        found: list[tuple[str, dict[str, str], float]] = [
            *(("fer_search_trials", {"state": s}, float(n)) for s, n in states.items()),
            ("fer_search_failures", {}, len(tally.failures)),
            ("fer_search_epochs", {}, tally.epochs),
            ("fer_search_epochs_per_second", {}, self._rate()),
            ("fer_search_worker_hours", {}, hours),
            ("fer_search_gpu_hours", {}, hours * self.gpus_per_trial),
        ]
        for name, trial in (("best", tally.best), ("baseline", tally.baseline)):
            if trial is not None and isfinite(tally.trials[trial].score):
                found.append((f"fer_search_{name}_score", {}, tally.trials[trial].score))
        for rung, seen in tally.rungs.items():
            for what, n in (("came", seen.came), ("went on", seen.went_on)):
                found.append(("fer_search_rung_trials", {"rung": str(rung), "what": what}, n))
        there = self.outlook.look()
        if there is not None or self.search.is_over:
            bounds = vars(there.seconds) if there else dict.fromkeys(("low", "middle", "high"), 0.0)
            found += [("fer_search_seconds_left", {"bound": b}, v) for b, v in bounds.items()]
        return found

    def _rate(self) -> float:
        now = self.clock()
        self.moments.append((now, self.tally.epochs))
        while self.moments[0][0] < now - RATE_SECONDS and len(self.moments) > 2:
            self.moments.pop(0)
        then, epochs = self.moments[0]
        return (self.tally.epochs - epochs) / (now - then) if now > then else 0.0
