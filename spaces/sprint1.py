"""sprint1: does AU supervision help? One fixed backbone; all that can be done with AU labels.

AU loss, lambda (fixed, warmed up, or balanced against the emotion task), AU-guided attention, class
prototypes as priors, emotion logits that read the AUs: 24 dimensions, 13 of them active in a trial
on average. Its control is built in: au_loss "none" is lambda = 0, and each part has its own (table
in trainables/README.md). What the AU labels mean is one for a run: --aus, --au-null, --au-sides.
"""

from spaces.space import Choice, LogUniform, Space, Uniform, Value

AU = ("bce", "plain_bce", "asymmetric", "weighted_asymmetric")
LEARNED = ("uncertainty", "gradnorm")  # balances that find lambda; au_weight is where they begin
FIXED_MOSTLY = 0.6  # a draw keeps lambda fixed with 0.6 + 0.4 / 4 = 0.7 (methods 2.2)
PRIOR = ("co_annotation", "distribution_matching")
ONE_FOR_ALL = 1e6  # imagined images: all classes have one prototype, the control
AU_GUIDED = ("au_spatial", "au_cross")

ANCHORS: dict[str, dict[str, Value]] = {  # the defaults but for one thing
    "no AUs": {"au_loss": "none"},
    "AU-guided": {"attention": "au_spatial"},
    "reads AUs": {"au_reading": "linear"},
    "uncertainty": {"au_balance": "uncertainty"},
    "plain BCE": {"au_loss": "plain_bce"},
}

SPACE = Space(
    "sprint1",
    {
        "backbone": "resnet",
        "attention": Choice(("none", *AU_GUIDED), "none"),
        "attention_stage": Choice(("middle", "last"), "middle", {"attention": AU_GUIDED}),
        "au_loss": Choice(("none", *AU), "bce"),
        "au_weight": LogUniform(0.03, 3.0, 0.3, {"au_loss": AU}),
        "region_weight": LogUniform(0.01, 1.0, 0.1, {"attention": ("au_spatial",), "au_loss": AU}),
        "au_loss.clip": LogUniform(2.0, 20.0, 5.0, {"au_loss": ("bce",)}),  # 1 is plain_bce
        "au_loss.gamma_neg": Choice((0.0, 1.0, 2.0, 4.0), 2.0, {"au_loss": ("asymmetric",)}),
        "au_loss.gamma_pos": Choice((0.0, 1.0), 1.0, {"au_loss": ("asymmetric",)}),
        "au_loss.margin": Choice((0.0, 0.05), 0.0, {"au_loss": ("asymmetric",)}),
        "au_balance": Choice(
            ("fixed", "uncertainty", "pcgrad", "gradnorm"), "fixed", {"au_loss": AU}, FIXED_MOSTLY
        ),
        "au_balance.start": Choice((-1.0, 0.0, 1.0), 0.0, {"au_balance": ("uncertainty",)}),
        "au_balance.alpha": Uniform(0.5, 1.5, 1.0, {"au_balance": ("gradnorm",)}),
        "au_balance.rate": LogUniform(1e-3, 1e-1, 1e-2, {"au_balance": LEARNED}),
        "curriculum": Choice(
            ("none", "linear"), "none", {"au_loss": AU, "au_balance": ("fixed", "pcgrad")}
        ),
        "curriculum_drives": "au_weight",  # lambda warms up
        "curriculum.start": Choice((0.01, 0.1), 0.1, {"curriculum": ("linear",)}),
        "curriculum.full_at": Uniform(
            0.05, 0.3, 0.15, {"curriculum": ("linear",)}
        ),  # before the first rung, a third
        "au_prior": Choice(("none", *PRIOR), "none", {"au_loss": AU}),
        "au_prior.weight": LogUniform(0.01, 0.3, 0.05, {"au_prior": PRIOR}),
        "au_prior.shrink": Choice((5.0, 15.0, 30.0, ONE_FOR_ALL), 15.0, {"au_prior": PRIOR}),
        "au_reading": Choice(("none", "linear", "random"), "none", {"au_loss": AU}),
        "loss": "cross_entropy",
        "loss.smoothing": Choice((0.0, 0.05, 0.1, 0.2), 0.1),
        "dropout": Uniform(0.0, 0.5, 0.1),
        "lr": LogUniform(5e-4, 1e-2, 3e-3),
        "head_lr_multiplier": 1.0,
        "weight_decay": LogUniform(1e-3, 0.2, 0.05),
        "batch_size": 32,
        "ema": 0.98,
        "warmup_epochs": 1.0,
    },
    anchors=ANCHORS,
)
