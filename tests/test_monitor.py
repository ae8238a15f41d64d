"""What is shown of a search, on a terminal and in a log file."""

import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console
from test_core import begin, row
from toy import EPOCHS, flat, run_toy, start

from search.inline import run_inline
from search.monitor import Monitor, Place, describe, rung_lines, span
from search.tally import Tally


def watch(search, is_terminal=False, total=12, **options):
    """A monitor with a clock set by hand and all it writes."""
    out, clock = io.StringIO(), SimpleNamespace(now=0.0)
    console = Console(file=out, force_terminal=is_terminal, width=80, height=30, color_system=None)
    monitor = Monitor(search, total, EPOCHS, console, clock=lambda: clock.now, **options)
    return monitor, clock, out


def drawn(monitor):
    """The lines of the table, as a terminal of 80 columns shows them."""
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(monitor.table())
    return console.file.getvalue().splitlines()


@pytest.fixture
def search(tmp_path):
    """A baseline that has ended, one failure, one running trial, one that waits."""
    search = start(tmp_path, anchors=[("baseline", flat(backbone="resnet50", lr=1e-3))])
    ended = begin(search, *(row(e, 0.05 * e) for e in range(1, EPOCHS + 1)))
    search.on_end(ended)
    search.on_end(begin(search, row(1, 0.3)), "RuntimeError: a bug")
    begin(search, row(1, 0.5), row(2, 0.625))
    search.next()
    return search


def test_the_table_says_what_matters_and_fits_80_columns(search):
    lines = drawn(watch(search, place=Place(dashboard="http://127.0.0.1:8265"))[0])
    text = "\n".join(lines)
    assert "2 of 12 trials ended: 1 running, 1 completed, 1 failed, 1 waiting" in text
    assert any(line.startswith("best     0.6250") for line in lines)
    assert any(line.startswith("baseline 0.4500") and "resnet50" in line for line in lines)
    assert "epoch 1: 3 came, 2 went on; epoch 3: 1 came, 1 went on" in text
    assert "http://127.0.0.1:8265" in text
    assert "2/9" in text
    assert max(map(len, lines)) <= 80


def test_the_table_of_a_search_that_has_just_begun(tmp_path):
    assert "0 of 12 trials ended" in drawn(watch(start(tmp_path))[0])[0]


def test_the_end_of_each_trial_is_a_line_in_a_log(search, tmp_path):
    monitor, _, out = watch(search)
    monitor.start()
    failing, good = search.next().id, begin(search, row(1, 0.6), row(EPOCHS, 0.9))
    search.on_end(failing, "ValueError: no")
    search.on_end(good)
    monitor.update()
    monitor.update()
    lines = out.getvalue().splitlines()
    assert lines[0] == f"trial {failing} failed at epoch 0: ValueError: no"
    assert lines[1].startswith(
        f"trial {good} completed at epoch 9: score 0.9000 (best so far), 0:04"
    )
    assert len(lines) == 2


def test_a_log_gets_a_summary_every_ten_seconds_and_at_the_end(search):
    monitor, clock, out = watch(search)
    monitor.start()
    for clock.now in range(1, 25):
        monitor.update()
    assert len(out.getvalue().splitlines()) == 2
    monitor.stop()
    last = out.getvalue().splitlines()[-1]
    assert last.startswith("2 of 12 trials ended: 1 running")
    assert "best 0.6250" in last
    assert "0:24 elapsed" in last


def test_a_terminal_is_redrawn_at_most_twice_a_second(search):
    monitor, clock, out = watch(search, is_terminal=True)
    monitor.start()
    draws = []
    for step in range(1, 41):
        clock.now = step / 20
        before = len(out.getvalue())
        monitor.update()
        draws.append(len(out.getvalue()) > before)
    monitor.stop()
    assert sum(draws) == 4


def test_failures_stay_on_the_terminal(search):
    monitor, _, out = watch(search, is_terminal=True)
    monitor.start()
    failing = search.next().id
    search.on_end(failing, "ValueError: no")
    monitor.update()
    monitor.stop()
    assert f"trial {failing} failed at epoch 0: ValueError: no" in out.getvalue()


def test_the_time_left_is_the_epochs_left_at_the_pace_so_far(tmp_path):
    search = start(tmp_path, budget=1, anchors=[("baseline", flat())])
    monitor, clock, _ = watch(search, total=1)
    monitor.start()
    begin(search, row(1), row(2), row(3))  # of nine; the baseline is never stopped
    clock.now = 6.0
    assert monitor.times() == "0:06 elapsed, ~0:12 left (0:12 to 0:12), 0.00 worker-hours"


def test_no_forecast_is_made_from_nothing(search):
    monitor, clock, _ = watch(search)
    monitor.start()
    clock.now = 5.0
    assert monitor.times().startswith("0:05 elapsed, 0.")


def test_what_is_spent_stands_beside_what_may_be(tmp_path):
    search = start(tmp_path)
    place = Place(gpus_per_trial=2, gpu_hours=4, hours=1.5)
    monitor, _, _ = watch(search, place=place)
    begin(search, row(1, seconds=1800.0))
    monitor.summary()
    assert monitor.spent() == "1.00 GPU-hours of 4, stops after 1:30:00"


def test_paused_trials_are_counted(tmp_path):
    search = start(tmp_path, pruner="promotion")
    begin(search, row(1))
    assert "1 paused" in watch(search)[0].summary()


def test_a_trial_is_described_by_what_differs(search):
    tally = Tally()
    tally.follow(search)
    first = next(iter(search.configs))
    assert describe(tally, first).startswith("resnet50, ")
    assert ", epochs" not in describe(tally, first)


def test_rungs_count_those_that_went_on(search):
    tally = Tally(search.pruner.milestones)
    tally.follow(search)
    assert rung_lines(tally)[0] == "epoch 1: 3 came, 2 went on"


def test_a_notebook_has_one_page_that_is_drawn_again(search, monkeypatch):
    pages = []

    def note(page, display_id=None):
        pages.append((display_id, page))

    fake = SimpleNamespace(HTML=str, display=note, update_display=note)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=fake))
    monitor, clock, _ = watch(search)
    monitor.console = Console(force_jupyter=True, width=80)
    monitor.start()
    clock.now = 1.0
    monitor.update()  # too early: a redraw is a message to the browser
    clock.now = 2.0
    monitor.update()
    monitor.stop()
    assert len(pages) == 3
    assert len({place for place, _ in pages}) == 1
    assert all("2 of 12 trials ended" in page for _, page in pages)


def test_a_whole_run_leaves_a_line_for_each_trial(tmp_path):
    search = start(tmp_path, budget=6)
    monitor, _, out = watch(search, total=6)
    run_inline(search, tmp_path, run_toy, monitor)
    lines = out.getvalue().splitlines()
    assert len(lines) == 7
    assert lines[-1].startswith("6 of 6 trials ended")


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (125, "2:05"), (3725, "1:02:05")])
def test_spans_of_time(seconds, text):
    assert span(seconds) == text
