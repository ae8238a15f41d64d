"""smoke: does everything run? A handful of settings, one network; seconds on a laptop."""

from spaces.space import Choice, LogUniform, Space

AU = ("bce",)

SPACE = Space(
    "smoke",
    {
        "backbone": "resnet",
        "attention": Choice(("none", "au_spatial"), "none"),
        "loss": Choice(("cross_entropy", "balanced_softmax"), "cross_entropy"),
        "au_loss": Choice(("none", *AU), "bce"),
        "au_weight": LogUniform(0.03, 3.0, 0.3, {"au_loss": AU}),
        "lr": LogUniform(5e-4, 1e-2, 3e-3),
        "batch_size": 32,
    },
)
