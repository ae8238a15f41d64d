"""Whoever watches a search cannot end it."""

import pytest
from toy import run_toy, start

from search.inline import run_inline
from search.watchers import Watchers


class Witness:
    def __init__(self, fails_in=""):
        self.fails_in, self.calls = fails_in, []

    def start(self):
        self._note("start")

    def update(self):
        self._note("update")

    def stop(self):
        self._note("stop")

    def _note(self, what):
        self.calls.append(what)
        if what == self.fails_in:
            raise OSError("no space left")


@pytest.mark.parametrize("fails_in", ["start", "update", "stop"])
def test_one_that_raises_is_told_of_once_and_left_out(tmp_path, fails_in):
    bad, good, told = Witness(fails_in), Witness(), []
    search = start(tmp_path, budget=3)
    assert run_inline(search, tmp_path, run_toy, Watchers([bad, good], told.append))
    assert len(search.results) == 3
    reason = "Witness stopped (OSError: no space left); the search goes on without it"
    assert told == [reason]
    assert bad.calls.count(fails_in) == 1
    assert bad.calls[-1] == "stop"  # it may close what it has open
    assert good.calls[0] == "start"
    assert good.calls[-1] == "stop"
    assert good.calls.count("update") > 3
