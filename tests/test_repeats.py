"""Few trials repeat a configuration, in the spaces of the sprints, with eight open at once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import repeats

RUNS = {"tpe": 1, "random": 1, "mfgp": 10}


@pytest.mark.parametrize("space", ["smoke", "sprint1", "sprint2"])
@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 60), ("random", 60), ("mfgp", 24)])
def test_fewer_than_one_in_twenty_repeats(space, sampler, trials):
    """On average over runs: made-up scores that favour an end of a range bring a few in some."""
    runs = [repeats.propose(space, sampler, trials, seed) for seed in range(RUNS[sampler])]
    assert {told.trials for told in runs} == {trials}
    assert sum(told.share for told in runs) / len(runs) < 0.05


def test_a_space_with_few_configurations_is_told_as_repeating(monkeypatch, tmp_path):
    """The twin: the count can fail."""
    file = tmp_path / "few.py"
    file.write_text(
        "from spaces.space import Choice, Space\n"
        'SPACE = Space("few", {"backbone": "resnet", "batch_size": Choice((16, 24, 32, 48), 16)})\n'
    )
    told = repeats.propose(str(file), "random", 9)
    assert told.groups <= 4
    assert told.most <= 3
    assert told.share > 0.5
