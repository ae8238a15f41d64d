"""sprint4: does more data help, where there are few images? All of sprint3, and synthetic images.

`generated` ones come from a set that `python -m trainables.generation DATA --out DIR` fits inside
the training split, given by `--synthetic DIR`; without it only `repeated` is left, its control of
equal cost. Self-supervised pretraining is no setting but a file: `--weights FILE` for any space
(`python -m trainables.pretraining`). Few-shot classifiers, classical features and synthesis of
feature vectors are a question of seconds on features that are fixed: space `heads`.
80 dimensions, 33 of them active in a trial on average.
"""

from spaces import sprint3
from spaces.space import Choice, Space, Uniform, Value
from spaces.sprint3 import HALF

ADDED = ("generated", "repeated")

ANCHORS: dict[str, dict[str, Value]] = {
    "generated": {"synthetic": "generated"},
    "repeated": {"synthetic": "repeated"},
    "generated, one as many": {"synthetic": "generated", "synthetic.balance": 1.0},
    "repeated, one as many": {"synthetic": "repeated", "synthetic.balance": 1.0},
}

SPACE = Space(
    "sprint4",
    {
        **sprint3.SPACE.leaning(HALF),
        "synthetic": Choice(("none", *ADDED), "none"),
        "synthetic.ratio": Choice((0.25, 0.5, 1.0, 2.0), 1.0, {"synthetic": ADDED}),
        "synthetic.balance": Uniform(0.0, 1.0, 0.5, {"synthetic": ADDED}),
        "synthetic.keep": Choice((0.5, 0.75, 1.0), 1.0, {"synthetic": ("generated",)}),
    },
    anchors=ANCHORS,
)
