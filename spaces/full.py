"""full: everything at once, for a cluster and some thousand trials.

sprint4, which holds sprint3 and sprint2, and what of AU supervision is sprint1's alone: balances,
priors, emotion logits that read AUs. No leaning: where nothing is known yet, nothing is believed.
88 dimensions, 44 of them active in a trial on average. With fewer than some hundred
trials go sprint by sprint instead (`--warm-start`), which asks one question at a time.
"""

from dataclasses import replace

from spaces import sprint1, sprint2, sprint3, sprint4
from spaces.space import Choice, Dimension, Space, Value, When
from spaces.sprint2 import AU, NOT_LDAM

OF_SPRINT1 = ("au_balance", "au_prior", "au_reading")
LAST = ("curriculum", "basics")  # what a curriculum can drive depends on all the others

ANCHORS: dict[str, dict[str, Value]] = {
    **sprint2.ANCHORS,
    "balanced tasks": {"au_balance": "uncertainty"},
    "reads AUs": {"au_reading": "linear"},
    **sprint3.ANCHORS,
    **sprint4.ANCHORS,
}


def everything() -> dict[str, Dimension | Value]:
    """The settings of all sprints, a setting after those that its conditions name."""
    all_but = sprint4.SPACE.leaning(0.0, but=LAST)
    ours = {
        name: dim
        for name, dim in sprint1.SPACE.settings.items()
        if name.partition(".")[0] in OF_SPRINT1
    }
    late = {n: d for n, d in sprint4.SPACE.leaning(0.0).items() if n not in all_but}
    reading, drives = ours["au_reading"], late["curriculum_drives"]
    assert isinstance(reading, Choice)
    assert isinstance(drives, Choice)
    ours["au_reading"] = replace(reading, when={"au_loss": AU, "loss": NOT_LDAM})
    fixed: dict[Value, When] = {
        "au_weight": {"au_loss": AU, "au_balance": ("fixed", "pcgrad")}
    }  # the others learn it
    late["curriculum_drives"] = replace(drives, needs={**drives.needs, **fixed})
    return {**all_but, **ours, **late}


SPACE = Space("full", everything(), anchors=ANCHORS)
