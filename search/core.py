"""The decision core: which trial next, who goes on, how a trial ended. No Ray, no Optuna, no clock.

The run folder is the record; study and rungs are rebuilt from it each time a `Search` is made, so
resuming after a crash is making one. A front (inline, driver) calls `next`, `on_row`, `on_end`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from math import isfinite, nan

from search.folds import FoldLadder, is_further, pooled_score
from search.outcome import judged, outcome, score
from search.protocols import Handout, Proposer, Pruner
from search.pruners import Verdict, best_so_far
from trainables.blas import one_thread
from trainables.config import Flat, TrialConfig, pacing_horizon
from trainables.store import Fenced, Row, RunStore, Status, TrialResult


class Search:
    """One run of the search, from its record to its end. State: what is live, waiting and known.

    `limit` says why no more may be spent, "" as long as it may; the trials in hand then pause.
    """

    def __init__(
        self,
        store: RunStore,
        proposer: Proposer,
        pruner: Pruner,
        budget: int,
        max_losses: int = 2,
        folds: int = 1,
    ) -> None:
        self.store, self.proposer, self.pruner = store, proposer, pruner
        self.budget, self.max_losses = budget, max_losses
        self.ladder = FoldLadder(folds, self.pooled) if folds > 1 else None
        self.is_settled = folds == 1  # no further fold will come
        self.limit: Callable[[], str] = str
        self.spent = ""  # what the limit said
        self.rows: dict[str, dict[int, Row]] = {}  # trial -> epoch -> row
        self.tops: dict[str, float] = {}  # trial -> its best score so far
        self.seconds = 0.0  # that all trials have trained
        self.configs: dict[str, Flat] = {}
        self.roles: dict[str, str] = {}
        self.results: dict[str, TrialResult] = {}
        self.news: list[str] = []  # trials in the order in which something new was known of them
        self.live: dict[str, int] = {}  # handed out -> attempt
        self.started: set[str] = set()  # of these, the ones that a worker has in hand
        self.paused: dict[str, int] = {}  # waiting at a rung -> its epoch
        self.backlog: list[str] = []  # unfinished, to be handed out first
        self.losses: Counter[str] = Counter()
        self.exhausted = False  # no new configuration will come
        self._stopped: set[str] = set()
        self._replay()

    def _replay(self) -> None:
        """Rebuild study and rungs from the record, in the order the trials were proposed."""
        for record in self.store.records():
            self._know(record.id, record.config, record.role)
            self.proposer.reopen(record.config)
            self._take(record.id, record.history)
            if record.result is None:
                self.backlog.append(record.id)
            else:
                self.results[record.id] = record.result
                self.news.append(record.id)
                if record.result.status != "failed":  # a crash may have come before
                    self.store.trial(record.id).discard_state()
                self.proposer.tell(record.id, record.history, record.result.status)
                self._climb(record.id, record.result.status)
        for trial in (t for t in self.backlog if self.rows[t] and self._is_judged(t)):
            epoch = max(self.rows[trial])
            if self.pruner.decide(trial, epoch, self.tops[trial]) == "pause":
                self.paused[trial] = epoch
        self.backlog = [trial for trial in self.backlog if trial not in self.paused]

    def _know(self, trial: str, config: Flat, role: str) -> None:
        self.rows[trial], self.configs[trial], self.roles[trial] = {}, config, role
        self.news.append(trial)
        if role == "baseline" or is_further(config):
            self.pruner.protect(trial)  # what all else is compared with has the full budget
        settings = TrialConfig.from_flat(config)
        self.pruner.spare(trial, pacing_horizon(settings))
        if self.ladder is not None:
            self.ladder.add(trial, settings, role)

    def _climb(self, trial: str, status: Status) -> None:
        """Tell the folds how one of them has ended."""
        if self.ladder is not None:
            self.ladder.close(TrialConfig.from_flat(self.configs[trial]), status)

    def pooled(self, trials: Sequence[str]) -> float:
        """The score of a configuration on what its folds have held out."""
        if len(trials) == 1:
            return score(self.history(trials[0])[-1])
        metric = str(self.configs[trials[0]].get("metric", "macro_f1"))
        return pooled_score(self.store, metric)(trials)

    def _is_judged(self, trial: str) -> bool:
        """Whether rungs are for it: a further fold has been earned, and is trained whole."""
        return not is_further(self.configs[trial])

    def _take(self, trial: str, history: Sequence[Row]) -> None:
        for row in history:
            self._add(trial, row)

    def _add(self, trial: str, row: Row) -> None:
        """Note a row. One of an epoch seen before changes nothing."""
        rows, epoch, value = self.rows[trial], row["epoch"], score(row)
        if epoch in rows:
            return
        rows[epoch] = row
        self.news.append(trial)
        self.seconds += float(row.get("seconds") or 0)
        self.tops[trial] = best_so_far((self.tops.get(trial, nan), value))
        if self._is_judged(trial):
            self.pruner.record(trial, epoch, self.tops[trial])
        self.proposer.observe(trial, epoch, value)

    @property
    def to_come(self) -> int:
        """How many trials may still begin."""
        left = max(0, self.budget - len(self.rows))
        return min(left, self.ladder.owed if self.ladder else 0) if self.exhausted else left

    @property
    def is_finished(self) -> bool:
        """Whether the books on every trial are closed and no other will come."""
        has_more = self.live or self.backlog or self.paused or not self.is_settled
        return self.exhausted and not has_more

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be handed out: all is finished, or all is spent."""
        return self.is_finished or bool(self.spent and not self.live)

    @one_thread()  # a model's matrices are small, and the trials beside it need the cores
    def next(self) -> Handout | None:
        """The trial to start: unfinished first, then earned folds, promoted ones, a new one.

        A live trial may still be lost and come back, so None is final only when `is_over`.
        """
        if self.is_spent():
            return None
        trial = self.backlog.pop(0) if self.backlog else None
        trial = trial or self._next_fold() or self._promote() or self._propose()
        if trial is None and not self.live and self.paused:
            trial = self._promote(is_last=True)
            if trial is None:
                self._close_paused()
        if trial is None and not self.live:
            trial = self._next_fold(is_last=True)
            if trial is None:  # and nothing is in hand that could change it
                self.exhausted = self.is_settled = True
        if trial is None:
            return None
        self.live[trial] = self.store.hand_out(trial)
        return Handout(trial, self.live[trial])

    def is_spent(self) -> bool:
        """Whether the limit is reached; `spent` then says which."""
        self.spent = self.spent or self.limit()
        return bool(self.spent)

    def _promote(self, is_last: bool = False) -> str | None:
        if self.pruner.is_led and self._may_propose:
            trial = self.proposer.prefer(self.paused)
            if trial is not None:
                self.pruner.let_go(trial, self.paused[trial])
        else:
            trial = self.pruner.promote(self.paused, is_last)
        if trial is not None:
            del self.paused[trial]
        return trial

    def _next_fold(self, is_last: bool = False) -> str | None:
        """A further fold of a configuration that has earned it, as a trial of its own."""
        found = self.ladder and self.ladder.next(self.budget - len(self.rows), is_last)
        if not found:
            return None
        config, role = found
        self.proposer.reopen(config.flat())  # to a sampler it is one more of that configuration
        trial = self.store.create_trial(config, len(self.rows), role)
        self._know(trial, config.flat(), role)
        return trial

    @property
    def _may_propose(self) -> bool:
        owed = self.ladder.owed if self.ladder else 0
        return not self.exhausted and len(self.rows) + owed < self.budget

    def _propose(self) -> str | None:
        if self._may_propose:
            proposal = self.proposer.ask()
            if proposal is not None:
                trial = self.store.create_trial(proposal.config, len(self.rows), proposal.role)
                self._know(trial, proposal.config.flat(), proposal.role)
                return trial
            self.exhausted = True
        self.exhausted = self.exhausted or len(self.rows) >= self.budget
        return None

    def _close_paused(self) -> None:
        """Nothing can change the rungs any more: whoever still waits there has lost."""
        for trial in list(self.paused):
            self._stopped.add(trial)
            self.on_end(trial)

    def is_current(self, handout: Handout) -> bool:
        """Whether this attempt at the trial is the one that counts."""
        return self.live.get(handout.id) == handout.attempt

    def on_start(self, trial: str) -> None:
        if trial in self.live:
            self.started.add(trial)

    def on_row(self, trial: str, row: Row) -> Verdict:
        """Whether the trial goes on; "pause" takes it back unfinished. An old row changes nothing.

        A trial that is done ends by itself.
        """
        if trial not in self.live:
            return "stop"
        self.on_start(trial)
        self._add(trial, row)
        epoch = row["epoch"]
        if epoch < max(self.rows[trial]):
            return "continue"  # old news: the decision on it has been taken and carried out
        value = judged(self.rows[trial][epoch], self.tops[trial])
        verdict: Verdict = "continue" if isfinite(value) else "stop"
        if self._is_judged(trial):
            verdict = self.pruner.decide(trial, epoch, value)
        if verdict == "stop":
            self._stopped.add(trial)
        elif verdict == "pause":
            self._pause(trial, epoch)
        elif epoch < self.pruner.max_epochs and self.is_spent():
            self._release(trial)
            self.backlog.append(trial)
            verdict = "pause"
        return verdict

    def _pause(self, trial: str, epoch: int) -> None:
        """The trial waits at a rung for its turn; a later hand-out goes on from its state."""
        self._release(trial)
        self.paused[trial] = epoch

    def on_lost(self, trial: str, is_preempted: bool = False) -> None:
        """The worker vanished: the trial goes to the front, unless it has cost too many workers.

        A worker that was preempted, or went down with its node, is not held against the trial.
        """
        if trial not in self.live:
            return
        self.losses[trial] += not is_preempted
        if self.store.trial(trial).result() is not None:
            self.on_end(trial)  # the worker had closed the trial before it vanished
        elif self.losses[trial] > self.max_losses:
            self.live[trial] = self.store.hand_out(
                trial
            )  # a worker that is only cut off must not write any more
            said = (self.store.trial(trial).read("error.txt") or b"").decode().strip()
            why = f" ({said.splitlines()[-1]})" if said else ""
            self.on_end(trial, f"its worker was lost {self.losses[trial]} times{why}")
        else:
            self._release(trial)
            self.backlog.insert(0, trial)

    def on_end(self, trial: str, error: str = "") -> Status:
        """Close the books on a trial; the status that is on record."""
        if trial in self.results:
            return self.results[trial].status
        if trial not in self.live and trial not in self._stopped:
            return "running"  # it was taken back unfinished
        own = self.store.trial(trial, self.live.get(trial))
        self._take(trial, own.history())  # rows that were stored but never delivered
        rows, is_stopped = self.history(trial), trial in self._stopped
        try:
            own.finish(outcome(rows, self.pruner.max_epochs, is_stopped, error))
        except Fenced:  # another driver has handed it out since: the verdict is not ours
            self._release(trial)
            return "running"
        result = own.result()  # the first verdict stands: the trial may have filed its own
        assert result is not None
        self.results[trial] = result
        self.news.append(trial)
        if result.status != "failed":
            own.discard_state()  # nobody goes on from here, and it is four times the weights
        self._release(trial)
        self.paused.pop(trial, None)
        self.proposer.tell(trial, rows, result.status)
        self._climb(trial, result.status)
        return result.status

    def _release(self, trial: str) -> None:
        self.live.pop(trial, None)
        self.started.discard(trial)

    def history(self, trial: str) -> list[Row]:
        return [self.rows[trial][epoch] for epoch in sorted(self.rows[trial])]
