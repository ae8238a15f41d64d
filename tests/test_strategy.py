"""Sampler, pruner, objectives and limits made definite."""

import argparse
import re

import pytest
from toy import start

from search import strategy
from search.options import parser


def settled(*words, root=None):
    args = parser().parse(["--space", "toy", *words])
    args.metric = args.metric or "macro_f1"
    return strategy.settle(args, root)


def test_what_is_not_said_is_chosen():
    args = settled()
    assert (args.sampler, args.pruner) == ("mfgp", "thaw")
    assert settled("--sampler", "tpe").pruner == "asha"
    assert settled("--pruner", "asha").sampler == "mfgp"
    assert args.objectives == ["macro_f1"]


def test_several_objectives_take_a_sampler_that_weighs_them():
    args = settled("--objectives", "macro_f1, latency")
    assert args.objectives == ["macro_f1", "latency"]
    assert args.sampler == "nsga2"
    assert strategy.columns(args.objectives) == ["score", "latency_ms"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sampler", "tep"], "unknown sampler 'tep'; known: auto, .*Did you mean 'tpe'"),
        (["--pruner", "ash"], "unknown pruner 'ash'; known: auto, .*Did you mean 'asha'"),
        (["--objectives", "f1,latency"], "--objectives: unknown metric 'f1'; known: macro_f1"),
        (["--objectives", "macro_f1,speed"], "unknown cost 'speed'; known: latency, parameters"),
        (["--objectives", "macro_f1,latency,latency"], "each may stand there once"),
        (["--objectives", "uar,latency"], "give --metric uar"),
        (["--objectives", "macro_f1,latency", "--sampler", "cmaes"], "take nsga2 or tpe"),
        (["--objectives", "macro_f1,latency", "--sampler", "mfgp"], "one objective, not 2"),
        (["--sampler", "tpe", "--pruner", "thaw"], "'tpe' cannot tell: take --sampler mfgp, or"),
        (["--objectives", "macro_f1,latency", "--warm-start", "r"], "leave out --objectives"),
    ],
)
def test_what_cannot_be_is_refused(words, message):
    with pytest.raises((ValueError, LookupError), match=re.compile(message)):
        settled(*words)


def test_a_limit_speaks_when_the_time_or_the_gpus_are_used_up(tmp_path):
    search, now = start(tmp_path), [0.0]
    args = argparse.Namespace(hours=2.0, gpu_hours=1.0)
    limit = strategy.limit(args, search, 4, clock=lambda: now[0])
    assert limit() == ""
    now[0] = 7200.0
    assert limit() == "2 hours have passed"
    now[0], search.seconds = 0.0, 900.0  # a quarter of an hour on four GPUs
    assert limit() == "1 of 1 GPU-hours are used"
    free = strategy.limit(argparse.Namespace(hours=None, gpu_hours=None), search, 4)
    assert free() == ""
