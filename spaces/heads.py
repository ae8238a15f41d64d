"""heads: which classifier on features that are fixed? The question a laptop can ask.

With `--weights RUN/trials/ID/weights.safetensors` the features are those of a trial's own trunk
(decoupled training), with a file of weights those of a pretrained one; without, classical ones.
They are computed once, then a trial takes a second or less. Of each choice the control is in it:
a linear head with cross-entropy (the baseline), exponent 0, tau 0, synthesis `repeat`.

Frozen features are not changed by an AU loss, so there is none to search; a copy of this space with
`au_loss` set to `bce` has a linear AU head and AU-F1 beside each classifier.

A trial has one row, so no trial is stopped early, and `epochs` is 1: `classifier.passes` says how
often a head sees the images.
"""

from spaces.space import Choice, IntRange, LogUniform, Space, Uniform, Value

CLASSICAL = ("hog", "lbp", "gabor", "colour")
GENERAL = ("resnet", "efficientnet", "convnext", "mobilenet", "vit", "dinov2", "tinyvit")
OF_FACES = ("facenet", "arcface", "hsemotion")

HEADED = ("linear", "crt")  # that train the head asked for
DESCENDING = (*HEADED, "tau_norm", "lws")  # by the loss asked for
EPISODIC = ("protonet", "maml")
TRAINED = (*DESCENDING, *EPISODIC)
MADE = ("repeat", "smote", "mixing", "calibration", "pair")  # "repeat": the control
SHALLOW = ("logistic", "svm", "lda")
BALANCED = ("none", "sampler")
ALL = (*DESCENDING, "prototypes", *EPISODIC, *SHALLOW)

ANCHORS: dict[str, dict[str, Value]] = {  # methods 2.4 and 2.11: first choices first
    "balanced softmax": {"loss": "balanced_softmax"},
    "re-trained on balanced classes": {"classifier": "crt"},
    "tau-normalised": {"classifier": "tau_norm"},
    "prototypes": {"classifier": "prototypes"},
    "additive": {"head": "additive"},
    "cosine": {"head": "cosine"},
    "scaled": {"classifier": "lws"},
    "logistic": {"classifier": "logistic"},
    "discriminant": {"classifier": "lda"},
}

SPACE = Space(
    "heads",
    {
        "features": Choice(("frozen", *CLASSICAL), "frozen"),
        "backbone": Choice((*GENERAL, *OF_FACES), "resnet", {"features": ("frozen",)}),
        "features.maps": Choice((1, 2, 3), 1, {"features": ("frozen",)}),
        "features.pool": Choice(("mean", "mean_max"), "mean", {"features": ("frozen",)}),
        "features.cell": Choice((8, 12, 16), 8, {"features": ("hog",)}),
        "features.radius": Choice((1, 2, 3), 1, {"features": ("lbp",)}),
        "features.grid": Choice((4, 7), 7, {"features": ("lbp",)}),
        "classifier": Choice(ALL, "linear"),
        "synthesis": Choice(("none", *MADE), "none"),
        "synthesis.ratio": Choice((0.25, 0.5, 1.0, 2.0), 0.5, {"synthesis": MADE}),
        "synthesis.classes": Choice(("all", "tail"), "all", {"synthesis": MADE}),
        "synthesis.neighbours": Choice((3, 5), 5, {"synthesis": ("smote",)}),
        "synthesis.alpha": Uniform(0.1, 0.4, 0.2, {"synthesis": ("mixing", "calibration")}),
        "synthesis.within": Choice((True, False), True, {"synthesis": ("mixing",)}),
        "synthesis.nearest": Choice((1, 2, 3), 2, {"synthesis": ("calibration",)}),
        "synthesis.noise": Uniform(0.0, 1.5, 1.0, {"synthesis": ("pair",)}),
        "loss": Choice(
            ("cross_entropy", "focal", "class_balanced", "ldam", "balanced_softmax"),
            "cross_entropy",
            {"classifier": ("linear",)},
        ),
        "loss.smoothing": Choice((0.0, 0.05, 0.1, 0.2), 0.0, {"loss": ("cross_entropy",)}),
        "loss.gamma": Uniform(0.5, 3.0, 1.0, {"loss": ("focal",)}),
        "loss.beta": Choice((0.9, 0.99, 0.995, 0.999), 0.99, {"loss": ("class_balanced",)}),
        "loss.margin": Uniform(0.3, 0.7, 0.5, {"loss": ("ldam",)}),
        "loss.scale": Choice((10.0, 20.0, 30.0), 20.0, {"loss": ("ldam",)}),
        "loss.tau": Uniform(0.0, 2.0, 1.0, {"loss": ("balanced_softmax",)}),
        "head": Choice(
            ("flat", "additive", "additive_residual", "cosine"),
            "flat",
            {"loss": ("cross_entropy", "focal", "class_balanced", "balanced_softmax")},
        ),
        "head.shrink": LogUniform(1e-3, 0.1, 0.01, {"head": ("additive_residual",)}),
        "head.scale": Choice((8.0, 16.0, 30.0), 16.0, {"head": ("cosine",)}),
        "rebalance": Choice(BALANCED, "none", {"loss": ("cross_entropy", "focal")}),
        "rebalance.exponent": Uniform(0.1, 1.0, 0.5, {"rebalance": ("sampler",)}),
        "soft_labels": Choice((0.0, 0.5, 1.0), 0.0, {"classifier": DESCENDING}),
        "dropout": Uniform(0.0, 0.5, 0.1, {"classifier": DESCENDING}),
        "classifier.passes": IntRange(5, 60, 20, log=True, when={"classifier": DESCENDING}),
        "classifier.exponent": Uniform(0.0, 1.0, 1.0, {"classifier": ("crt",)}),
        "classifier.tau": Uniform(0.0, 1.5, 1.0, {"classifier": ("tau_norm",)}),
        "classifier.rescaling": Choice((5, 10, 15), 10, {"classifier": ("lws",)}),
        "classifier.distance": Choice(
            ("cosine", "euclidean"), "cosine", {"classifier": ("prototypes",)}
        ),
        "classifier.temperature": LogUniform(0.05, 1.0, 0.1, {"classifier": ("prototypes",)}),
        "classifier.shrink": Uniform(0.0, 30.0, 10.0, {"classifier": ("prototypes",)}),
        "classifier.shots": Choice((1, 5), 5, {"classifier": EPISODIC}),
        "classifier.queries": Choice((5, 10), 5, {"classifier": EPISODIC}),
        "classifier.width": Choice((32, 64, 128), 64, {"classifier": EPISODIC}),
        "classifier.inner_lr": LogUniform(0.01, 0.1, 0.05, {"classifier": ("maml",)}),
        "classifier.inner_steps": Choice((1, 3, 5), 3, {"classifier": ("maml",)}),
        "classifier.c": LogUniform(1e-3, 10.0, 0.03, {"classifier": ("logistic", "svm")}),
        "classifier.shrinkage": Uniform(0.0, 1.0, 0.1, {"classifier": ("lda",)}),
        "classifier.pca": Choice((0.9, 0.95, 1.0), 0.95, {"classifier": SHALLOW}),
        "classifier.balanced": Choice((False, True), False, {"classifier": SHALLOW}),
        "lr": LogUniform(1e-3, 0.1, 0.01, {"classifier": TRAINED}),
        "weight_decay": LogUniform(1e-4, 1.0, 0.05, {"classifier": TRAINED}),
        "batch_size": Choice((64, 128, 256), 128, {"classifier": DESCENDING}),
        "epochs": 1,
    },
    anchors=ANCHORS,
    trials=200,
)
