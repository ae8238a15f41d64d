"""The network of a trial. N batch, K classes, A action units, D embedding, S pixels a side.

images (N, 3, S, S) in [0, 1] -> backbone -> attention -> fusion, and beside it a local branch
-> emotion head, whose logits may read the AUs, and AU head.
"""

import logging
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainables.attention import ATTENTIONS, AU_AWARE
from trainables.backbones import Backbone, build_backbone
from trainables.config import Part, TrialConfig, drives_size, has_au_task
from trainables.fusion import FUSIONS, Fusion
from trainables.heads import HEADS, Additive, Components, penalty_of, small_linear
from trainables.local import LocalBranch, local_of
from trainables.losses import LDAM_SCALE
from trainables.reading import READINGS
from trainables.weights import load_weights

log = logging.getLogger(__name__)

STAGES = {"middle": -2, "last": -1}
SIDE_GATE = 0.1


class Output(NamedTuple):
    """What a batch of faces looks like to the network."""

    logits: Tensor  # (N, K)
    au_logits: Tensor | None  # (N, A), where the trial learns AUs
    au_maps: Tensor | None  # (N, A, h, w) logits, where attention is AU-aware
    embedding: Tensor  # (N, D), what the head sees, before dropout
    penalty: Tensor  # scalar to add to the loss: what the head's own weights cost, 0 for most
    basic_logits: Tensor | None = None  # (N, B), in training, where the trial learns basic emotions


class Beside(NamedTuple):
    """What a network may have beside its main way."""

    local: LocalBranch | None  # adds to the embedding
    reading: nn.Module  # of AUs by the emotion logits
    asks_basics: bool = False  # whether basic emotions are learned by themselves
    basic: nn.Module | None = None  # which does it, where the head has no basic logits of its own


class FERModel(nn.Module):
    """Backbone -> attention on one map -> fusion -> heads, and what is beside this way."""

    def __init__(
        self,
        backbone: Backbone,
        attention: nn.Module,
        stage: int,
        fusion: Fusion,
        heads: "Heads",
        beside: "Beside",
    ) -> None:
        super().__init__()
        self.backbone, self.attention, self.stage = backbone, attention, stage
        self.fusion, self.heads = fusion, heads
        self.local, self.reading = beside.local, beside.reading
        self.asks_basics, self.basic = beside.asks_basics, beside.basic

    def forward(self, images: Tensor, boxes: Tensor | None = None) -> Output:
        """`boxes` (N, B, 4) say where augmentation has moved what the local branch looks at."""
        maps = self.backbone(self.backbone.normalised(images))
        features, seen_logits, au_maps = self.attention(maps[self.stage])
        maps[self.stage] = features
        embedding, _ = self.fusion(maps)
        added = None if self.local is None else self.local(maps[STAGES["middle"]], boxes)
        embedding, logits, au_logits = self.heads(embedding, features, seen_logits, added)
        penalty = penalty_of(self.heads.emotion, logits)
        basic = self._basic_logits(embedding) if self.asks_basics and self.training else None
        logits = self.reading(logits, au_logits)
        return Output(logits, au_logits, au_maps, embedding, penalty, basic)

    def _basic_logits(self, embedding: Tensor) -> Tensor:
        layer = self.heads.emotion.basic if self.basic is None else self.basic
        assert isinstance(layer, nn.Module)
        logits: Tensor = layer(self.heads.dropout(embedding))
        return logits


class Heads(nn.Module):
    """From the fused embedding to emotion and AU logits."""

    def __init__(
        self,
        emotion: nn.Module,
        dim: int,
        side: nn.Module | None,
        au: nn.Module | None,
        learns_aus: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)  # one scale of values, whatever the backbone
        self.side, self.dropout = side, nn.Dropout(dropout)
        self.emotion, self.au, self.learns_aus = emotion, au, learns_aus

    def forward(
        self, embedding: Tensor, features: Tensor, seen_logits: Tensor | None, beside: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Embedding, emotion logits and AU logits; `features` are the attended map, `beside` is
        what the local branch adds."""
        embedding = self.norm(embedding)
        if beside is not None:
            embedding = embedding + beside
        if self.side is not None:
            embedding = embedding + self.side(features)
        dropped = self.dropout(embedding)
        au_logits = seen_logits if self.learns_aus else None
        if self.au is not None:
            au_logits = self.au(dropped)
        return embedding, self.emotion(dropped), au_logits


class Side(nn.Module):
    """A small addition to the embedding from a map that the fusion does not see."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, dim))
        self.gate = nn.Parameter(torch.tensor([SIDE_GATE]))

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = self.gate * self.project(features.mean((2, 3)))
        return added


def build_model(
    config: TrialConfig, classes: int, aus: int, components: Components = None, basics: int = 0
) -> FERModel:
    """The network of a configuration, its random weights drawn from torch's global generator.

    Raises LookupError for unknown names, ValueError for settings that cannot go together.
    """
    stage, learns_aus = _stage(config), _learns_aus(config, aus)
    backbone = build_backbone(
        config.backbone.name,
        config.image_size,
        config.drop_path,
        drives_size(config),
        **config.backbone.args,
    )
    if config.weights != "none":
        log.info(load_weights(backbone, config.backbone.name, config.weights).summary())
    fusion = FUSIONS[config.fusion.name](backbone.channels, **config.fusion.args)
    channels = backbone.channels[stage]
    attention = ATTENTIONS[config.attention.name](channels, aus, **config.attention.args)
    part = head_of(config)
    head = HEADS[part.name](fusion.dim, components, classes, basics, **part.args)
    has_attention = config.attention.name != "none"
    is_seen = len(backbone.channels) + stage in fusion.sees
    side = Side(channels, fusion.dim) if has_attention and not is_seen else None
    needs_au_head = learns_aus and config.attention.name not in AU_AWARE
    au_head = small_linear(fusion.dim, aus) if needs_au_head else None
    heads = Heads(head, fusion.dim, side, au_head, learns_aus, config.dropout)
    local = _local_branch(config, backbone, fusion)
    reading = READINGS[config.au_reading.name](aus, classes, **config.au_reading.args)
    asks_basics = config.basics.name != "none"
    needs_basic = asks_basics and not isinstance(head, Additive)
    basic = small_linear(fusion.dim, basics) if needs_basic else None
    beside = Beside(local, reading, asks_basics, basic)
    return FERModel(backbone, attention, stage, fusion, heads, beside)


def _local_branch(config: TrialConfig, backbone: Backbone, fusion: Fusion) -> LocalBranch | None:
    local = local_of(config)
    if not len(local.boxes):
        return None
    return LocalBranch(local, backbone.channels[STAGES["middle"]], fusion.dim)


def head_of(config: TrialConfig) -> Part:
    """The head asked for; for loss `ldam`, which is defined on cosines, a linear one normalised.

    Raises ValueError for ldam with a head that is neither.
    """
    if config.loss.name != "ldam" or config.head.name == "cosine":
        return config.head
    if config.head.name != "flat":
        raise ValueError(
            f"loss 'ldam' needs head 'flat' (which it normalises) or 'cosine', not "
            f"'{config.head.name}'"
        )
    return Part("cosine", {"scale": config.loss.args.get("scale", LDAM_SCALE)})


def parameter_groups(
    model: FERModel, lr: float, head_lr_multiplier: float, weight_decay: float
) -> list[dict[str, object]]:
    """Optimiser groups: backbone and rest (its rate multiplied), with and without weight decay.

    Gains, biases, gates and what timm exempts (position embeddings, class tokens) do not decay.
    """
    exempt = _exempt(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_backbone = name.startswith("backbone.")
            rate = lr if is_backbone else lr * head_lr_multiplier
            decay = 0.0 if parameter.ndim <= 1 or name in exempt else weight_decay
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": p, "lr": r, "weight_decay": d} for (r, d), p in groups.items()]


def _exempt(model: FERModel) -> set[str]:
    ask = getattr(model.backbone.net, "no_weight_decay", None)
    return {f"backbone.net.{name}" for name in ask()} if ask else set()


def _stage(config: TrialConfig) -> int:
    if config.attention_stage not in STAGES:
        raise LookupError(
            f"unknown attention_stage '{config.attention_stage}'; known: {', '.join(STAGES)}"
        )
    return STAGES[config.attention_stage]


def _learns_aus(config: TrialConfig, aus: int) -> bool:
    """Whether the trial has an AU task; without an AU loss or with no weight it has none."""
    asked = has_au_task(config)
    if asked and not aus:
        raise ValueError(
            f"au_weight is {config.au_weight} with AU loss '{config.au_loss.name}', "
            "but this data set names no action units; set au_weight to 0"
        )
    return asked
