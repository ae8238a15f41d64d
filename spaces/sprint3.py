"""sprint3: how to train? Curriculum and what it drives, augmentation, mixing, averaging, SAM.

It holds all of sprint2, so that what that found carries on (`--warm-start`), and leans to its
defaults, which leaves most of a trial to the question of this sprint. To it are added: what the
curriculum drives and in which order, basic emotions before their compounds, more augmentation and
mixing, averaged weights, sharpness-aware minimisation. Each has its control among its values.
76 dimensions, 36 of them active in a trial on average.

Augmentation is the same for all classes: `minority_only`, whose artefacts are a label cue, is left
to ablations. Test-time augmentation and corrections after training are never searched: they are
judged from stored logits (`analysis/posthoc.py`).
"""

from spaces import sprint2
from spaces.space import Choice, Space, Uniform, Value, When
from spaces.sprint2 import AU, PACING

BLENDS = ("mixup", "cutmix", "mixaugment", "remix")
MIXING = (*BLENDS, "repeated")  # "repeated": the control of mixaugment, real images again
CROPPED = ("au_safe", "erase_crop")  # the second: the same, placed blindly
ORDERED = ("class_count", "reference_loss", "au_prototype", "crowd_entropy")
NO_BLEND_UNDER = ("cross_entropy", "class_balanced", "ldam", "balanced_softmax")  # not with focal
STAGES = ("two_stage", "three_stage")
DRIVEN: dict[
    Value, When
] = {  # what a curriculum can drive beside the data and the image size, and where it is there
    "sampler": {"rebalance": ("sampler",)},
    "tau": {"loss": ("balanced_softmax",)},
    "au_weight": {"au_loss": AU},
    "mix": {"mix": BLENDS},
}

REPLACED = ("curriculum", "augment", "mix")  # by wider ones, here
HALF = 0.5  # of the draws stay near what the sprints before believe in
ANCHORS: dict[str, dict[str, Value]] = {  # the defaults but for one thing
    "trivial": {"augment": "trivial"},
    "SAM": {"sam": 0.05},
    "basics first": {"basics": "two_stage"},
    "remix": {"mix": "remix"},
    "lambda grows": {"curriculum": "linear", "curriculum_drives": "au_weight"},
    "averaged late": {"average": "swa"},
}

SPACE = Space(
    "sprint3",
    {
        **sprint2.SPACE.leaning(HALF, but=REPLACED),
        "augment": Choice(("none", "light", "medium", "trivial", *CROPPED), "light"),
        "augment.blur": Uniform(0.0, 0.3, 0.0, {"augment": ("medium",)}),
        "augment.low_resolution": Uniform(0.0, 0.3, 0.0, {"augment": ("medium",)}),
        "augment.jpeg": Uniform(0.0, 0.3, 0.0, {"augment": ("medium",)}),
        "augment.crop": Uniform(0.6, 0.95, 0.8, {"augment": CROPPED}),
        "augment.probability": Uniform(0.1, 0.6, 0.25, {"augment": CROPPED}),
        "augment.share": Uniform(0.1, 0.5, 0.3, {"augment": ("au_safe",)}),
        "augment.protect": Choice(("own", "others"), "own", {"augment": ("au_safe",)}),
        "mix": Choice(("none", *MIXING), "none", {"loss": NO_BLEND_UNDER}),
        "mix.alpha": Choice((0.1, 0.2, 0.4, 1.0), 0.2, {"mix": BLENDS}),
        "mix.probability": Uniform(0.2, 0.8, 0.5, {"mix": ("mixup", "cutmix", "remix")}),
        "mix.kappa": Uniform(2.0, 5.0, 3.0, {"mix": ("remix",)}),
        "mix.tau": Uniform(0.3, 0.7, 0.5, {"mix": ("remix",)}),
        "mix_off": Choice((0.0, 0.1, 0.2), 0.0, {"mix": MIXING}),
        "curriculum": Choice(("none", *PACING), "none"),
        "curriculum_drives": Choice(
            ("data", "size", *DRIVEN), "data", {"curriculum": PACING}, needs=DRIVEN
        ),
        "curriculum_order": Choice(
            (*ORDERED, "random"), "class_count", {"curriculum_drives": ("data",)}
        ),
        "curriculum_reversed": Choice((False, True), False, {"curriculum_order": ORDERED}),
        "curriculum.start": Uniform(0.1, 0.9, 0.4, {"curriculum": PACING}),
        "curriculum.full_at": Uniform(0.05, 0.5, 0.15, {"curriculum": PACING}),
        "curriculum.power": Choice((2.0, 3.0, 5.0), 2.0, {"curriculum": ("root",)}),
        "curriculum.factor": Uniform(1.5, 3.0, 2.0, {"curriculum": ("step",)}),
        "curriculum.step_length": Uniform(0.02, 0.1, 0.05, {"curriculum": ("step",)}),
        "basics": Choice(("none", *STAGES), "none"),
        "basics.first": Uniform(0.05, 0.2, 0.1, {"basics": STAGES}),
        "basics.second": Uniform(0.05, 0.2, 0.1, {"basics": ("three_stage",)}),
        "basics.mixing": Choice(("mixup", "cutmix"), "mixup", {"basics": ("three_stage",)}),
        "basics.permuted": Choice((False, True), False, {"basics": STAGES}),  # the control
        "average": Choice(("ema", "swa"), "ema"),
        "average.start": Uniform(0.5, 0.9, 0.75, {"average": ("swa",)}),
        "average.rate": Uniform(0.05, 0.5, 0.25, {"average": ("swa",)}),
        "sam": Choice((0.0, 0.02, 0.05, 0.1), 0.0),
    },
    anchors=ANCHORS,
)
