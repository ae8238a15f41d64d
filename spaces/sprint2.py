"""sprint2: which architecture and which imbalance treatment? The main job.

Backbone, attention and its stage, fusion, local branch, head, lambda, AU loss, emotion loss, soft
labels, curriculum pacing, mixing and the optimiser, each with its arguments: 56 dimensions, 29 of
them active in a trial on average. "none" is in every choice, so each technique has its control. At
most one imbalance correction: `rebalance` exists only under losses that do not correct by
themselves. It builds on sprint1 by AU losses and lambda; the rest of AU supervision is left there.

A curriculum ends within the first fifth of the training, so that the first rung (a third of it in
every tier) judges networks that have been trained on all classes.
"""

from spaces.space import Choice, LogUniform, Space, Uniform, Value

AU = ("bce", "plain_bce", "asymmetric", "weighted_asymmetric")  # those of sprint1
AU_GUIDED = ("au_spatial", "au_cross")
BOTTLENECK = ("se", "cbam", "coordinate", "gather_excite")
ATTENTION = ("eca", *BOTTLENECK, *AU_GUIDED)
PACING = ("linear", "root", "geometric", "step")
FUSION = ("concat", "fpn", "gated", "attention_pool")
HEADS = ("flat", "additive", "additive_residual", "cosine")
LOCAL = ("face", "anywhere")  # "anywhere": the control, the same boxes at random places
NOT_LDAM = ("cross_entropy", "focal", "class_balanced", "balanced_softmax")  # it has its own head
NEUTRAL = ("cross_entropy", "focal")  # losses that leave the class weights alone

GENERAL = ("resnet", "efficientnet", "convnext", "mobilenet", "vit", "dinov2", "tinyvit")
OF_FACES = ("facenet", "arcface", "hsemotion")  # left out unless --weights gives theirs

NO_AUS: dict[str, Value] = {"au_loss": "none"}
AUS: dict[str, Value] = {"au_loss": "bce", "au_weight": 0.3}
ANCHORS: dict[str, dict[str, Value]] = {  # methods 2.16: imbalance first, then one thing more
    "cross-entropy": NO_AUS,
    "balanced softmax": {**NO_AUS, "loss": "balanced_softmax"},
    "deferred": {**NO_AUS, "rebalance": "deferred"},
    "deferred, AUs": {**AUS, "rebalance": "deferred"},
    "deferred, AUs, additive": {**AUS, "rebalance": "deferred", "head": "additive"},
}

SPACE = Space(
    "sprint2",
    {
        "backbone": Choice((*GENERAL, *OF_FACES), "resnet"),
        "attention": Choice(("none", *ATTENTION), "none"),
        "attention_stage": Choice(("middle", "last"), "middle", {"attention": ATTENTION}),
        "attention.reduction": Choice((4, 8, 16), 16, {"attention": BOTTLENECK}),
        "attention.kernel": Choice((3, 7), 7, {"attention": ("cbam",)}),
        "attention.extent": Choice((2, 4, 8), 4, {"attention": ("gather_excite",)}),
        "attention.width": Choice((128, 256), 128, {"attention": ("au_cross",)}),
        "attention.heads": Choice((4, 8), 4, {"attention": ("au_cross",)}),
        "attention.layers": Choice((1, 2), 1, {"attention": ("au_cross",)}),
        "attention.dropout": Uniform(0.1, 0.3, 0.1, {"attention": ("au_cross",)}),
        "fusion": Choice(("none", *FUSION), "none"),
        "fusion.width": Choice((64, 128, 256), 128, {"fusion": FUSION}),
        "fusion.heads": Choice((2, 4, 8), 4, {"fusion": ("attention_pool",)}),
        "local": Choice(("none", *LOCAL), "none"),
        "local.boxes": Choice((3, 5), 3, {"local": LOCAL}),
        "local.jitter": Uniform(0.0, 0.1, 0.05, {"local": LOCAL}),
        "local.drop": Uniform(0.0, 0.3, 0.1, {"local": LOCAL}),
        "dropout": Uniform(0.0, 0.5, 0.1),
        "au_loss": Choice(("none", *AU), "bce"),
        "au_weight": LogUniform(0.03, 3.0, 0.3, {"au_loss": AU}),
        "region_weight": LogUniform(
            0.01, 1.0, 0.1, {"attention": ("au_spatial",), "au_loss": AU}
        ),  # AU supervision too: it goes with lambda
        "au_loss.clip": LogUniform(2.0, 20.0, 5.0, {"au_loss": ("bce",)}),  # 1 is plain_bce
        "au_loss.gamma_neg": Choice((0.0, 1.0, 2.0, 4.0), 2.0, {"au_loss": ("asymmetric",)}),
        "au_loss.gamma_pos": Choice((0.0, 1.0), 1.0, {"au_loss": ("asymmetric",)}),
        "au_loss.margin": Choice((0.0, 0.05), 0.0, {"au_loss": ("asymmetric",)}),
        "loss": Choice((*NEUTRAL, "class_balanced", "ldam", "balanced_softmax"), "cross_entropy"),
        "soft_labels": Choice((0.0, 0.25, 0.5, 0.75, 1.0), 0.0),  # off where there are no votes
        "head": Choice(HEADS, "flat", {"loss": NOT_LDAM}),
        "head.shrink": LogUniform(1e-3, 0.1, 0.01, {"head": ("additive_residual",)}),
        "head.scale": Choice((8.0, 16.0, 30.0), 16.0, {"head": ("cosine",)}),
        "loss.smoothing": Choice((0.0, 0.05, 0.1, 0.2), 0.1, {"loss": ("cross_entropy",)}),
        "loss.gamma": Uniform(0.5, 3.0, 1.0, {"loss": ("focal",)}),
        "loss.beta": Choice((0.9, 0.95, 0.99, 0.995, 0.999), 0.99, {"loss": ("class_balanced",)}),
        "loss.margin": Uniform(0.3, 0.7, 0.5, {"loss": ("ldam",)}),
        "loss.scale": Choice((10.0, 20.0, 30.0), 20.0, {"loss": ("ldam",)}),
        "loss.tau": Uniform(0.0, 2.0, 1.0, {"loss": ("balanced_softmax",)}),
        "rebalance": Choice(("none", "deferred", "sampler"), "none", {"loss": NEUTRAL}),
        "rebalance.start": Choice((0.6, 0.7, 0.8, 0.9), 0.7, {"rebalance": ("deferred",)}),
        "rebalance.beta": Choice((0.99, 0.995, 0.999), 0.99, {"rebalance": ("deferred",)}),
        "rebalance.exponent": Uniform(0.1, 1.0, 0.5, {"rebalance": ("sampler",)}),
        "curriculum": Choice(("none", *PACING), "none"),
        "curriculum_order": Choice(
            ("class_count", "random"), "class_count", {"curriculum": PACING}
        ),
        "curriculum_reversed": Choice(
            (False, True), False, {"curriculum": PACING, "curriculum_order": ("class_count",)}
        ),
        "curriculum.start": Uniform(0.1, 0.9, 0.4, {"curriculum": PACING}),
        "curriculum.full_at": Uniform(0.05, 0.2, 0.15, {"curriculum": PACING}),  # see above
        "curriculum.power": Choice((2.0, 3.0, 5.0), 2.0, {"curriculum": ("root",)}),
        "curriculum.factor": Uniform(1.5, 3.0, 2.0, {"curriculum": ("step",)}),
        "curriculum.step_length": Uniform(0.02, 0.1, 0.05, {"curriculum": ("step",)}),
        "augment": Choice(("light", "medium"), "light"),
        "mix": Choice(("none", "mixup", "cutmix"), "none"),
        "mix.alpha": Choice((0.1, 0.2, 0.4, 1.0), 0.2, {"mix": ("mixup", "cutmix")}),
        "mix.probability": Uniform(0.2, 0.8, 0.5, {"mix": ("mixup", "cutmix")}),
        "lr": LogUniform(5e-4, 1e-2, 3e-3),
        "head_lr_multiplier": 1.0,
        "weight_decay": LogUniform(1e-3, 0.2, 0.05),
        "batch_size": Choice((16, 32, 64), 32),
        "ema": Choice((0.9, 0.95, 0.98), 0.95),
        "warmup_epochs": 1.0,
    },
    anchors=ANCHORS,
)
