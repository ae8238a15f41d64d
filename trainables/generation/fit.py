"""Fitting the GAN: steps, checkpoints, and images from what was fitted.

Only a Split is given: whoever calls it decides what the GAN may see (`provenance.py`).
N images, A action units, S pixels a side; images are uint8 outside and in [-1, 1] inside.
"""

import copy
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator as Chance
from torch import Tensor, nn

from trainables import state
from trainables.averages import average_in
from trainables.data.bundle import Split
from trainables.generation.conditions import sampling_weights
from trainables.generation.diffaugment import diffaugment, read_policy
from trainables.generation.game import (
    GAMES,
    au_loss,
    average_share,
    r1_penalty,
)
from trainables.generation.gan import Discriminator, Generator, Shape
from trainables.store import replace_file

R1_EVERY = 8  # steps; its weight makes up for it (Karras et al. 2020, 1912.04958)
CHECKPOINT, LOSSES = "checkpoint.pt", "losses.jsonl"
Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Settings:
    """How the GAN is fitted; `steps` may be raised later, the rest makes another GAN."""

    steps: int = 20_000
    batch: int = 32
    width: int = 16
    lr: float = 1e-3
    loss: str = "non_saturating"
    gamma: float = 1.0  # of R1
    half_life: float = 10_000.0  # images, of the averaged generator
    au_weight: float = 1.0  # of the AUs that both networks are asked for
    exponent: float = 0.5  # a class is seen as its count to the power of 1 - exponent
    policy: str = "color,translation,cutout"
    seed: int = 0

    def identity(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "steps"}


class Fitting:
    """The state of a fit between steps: both networks, the averaged generator, optimisers, count.

    Chance is drawn anew for each step from (seed, step): a resumed fit equals an unbroken one.
    """

    def __init__(
        self,
        train: Split,
        shape: Shape,
        settings: Settings,
        device: torch.device,
        mirror: list[int] | None = None,
    ) -> None:
        self.settings, self.shape, self.device, self.done = settings, shape, device, 0
        self.policy, self.game = read_policy(settings.policy), GAMES[settings.loss]()
        self.images = torch.from_numpy(np.array(train.images))
        self.labels = torch.from_numpy(train.labels.copy())
        self.aus = torch.from_numpy(train.aus.astype(np.float32))
        self.mirror = None if mirror is None else torch.tensor(mirror)
        self.weights = torch.from_numpy(sampling_weights(train.labels, settings.exponent))
        with torch.random.fork_rng():
            torch.manual_seed(_seed(settings.seed, "weights"))
            self.generator = self._placed(Generator(shape, settings.width))
            self.discriminator = self._placed(Discriminator(shape, settings.width))
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.optimizers = [
            torch.optim.Adam(net.parameters(), settings.lr, (0.0, 0.99))
            for net in (self.generator, self.discriminator)
        ]

    def _placed(self, net: Net) -> Net:
        return net.to(self.device).to(memory_format=torch.channels_last)

    def step(self) -> dict[str, float]:
        """Both networks learn from one batch; the losses. Raises FloatingPointError on NaN."""
        chance = Chance().manual_seed(_seed(self.settings.seed, "step", self.done))
        noise = torch.randn(self.settings.batch, self.generator.noise, generator=chance)
        asked = self._draw(chance)[1:]  # as real images are labelled, or labels would give it away
        with half_precision(self.device):
            fake = self.generator(noise.to(self.device), *asked)
        losses = self._discriminate(fake.detach().float(), asked, chance)
        losses |= self._generate(fake.float(), asked, chance)
        if not np.isfinite(list(losses.values())).all():
            raise FloatingPointError(f"step {self.done}: the losses are {losses}; lower lr")
        self.done += 1
        batch = self.settings.batch
        share = average_share(batch, self.settings.half_life, batch * self.done)
        average_in(self.average.parameters(), self.generator.parameters(), share)
        return losses

    def _draw(self, chance: Chance) -> tuple[Tensor, Tensor, Tensor]:
        """A batch of training images, half of them mirrored, with labels and AUs; on the device."""
        rows = torch.multinomial(
            self.weights, self.settings.batch, replacement=True, generator=chance
        )
        turned = torch.rand(len(rows), generator=chance) < 0.5
        images, aus = self.images[rows].float() / 127.5 - 1, self.aus[rows]
        images = torch.where(turned[:, None, None, None], images.flip(3), images)
        if self.mirror is not None:
            aus = torch.where(turned[:, None], aus[:, self.mirror], aus)
        return images.to(self.device), self.labels[rows].to(self.device), aus.to(self.device)

    def _discriminate(
        self, fake: Tensor, asked: tuple[Tensor, Tensor], chance: Chance
    ) -> dict[str, float]:
        images, labels, aus = self._draw(chance)
        real = diffaugment(images, self.policy, chance)
        is_penalised = self.settings.gamma > 0 and self.done % R1_EVERY == 0
        real.requires_grad_(is_penalised)
        shown = diffaugment(fake, self.policy, chance)
        with half_precision(self.device, not is_penalised):
            real_scores, real_units = self.discriminator(real, labels, aus)
            fake_scores, _ = self.discriminator(shown, *asked)
        parts = {"discriminator": self.game.discriminator(real_scores.float(), fake_scores.float())}
        parts["au_real"] = self.settings.au_weight * au_loss(real_units.float(), aus)
        if is_penalised:
            parts["r1"] = R1_EVERY * r1_penalty(real_scores, real, self.settings.gamma)
        self._descend(1, sum(parts.values(), torch.zeros((), device=self.device)))
        parts |= {"real": real_scores.mean(), "fake": fake_scores.mean()}
        return {name: float(value.detach()) for name, value in parts.items()}

    def _generate(
        self, fake: Tensor, asked: tuple[Tensor, Tensor], chance: Chance
    ) -> dict[str, float]:
        self.discriminator.requires_grad_(False)  # it only passes gradients on
        shown = diffaugment(fake, self.policy, chance)
        with half_precision(self.device):
            scores, units = self.discriminator(shown, *asked)
        fooling = self.game.generator(scores.float())
        shows = self.settings.au_weight * au_loss(units.float(), asked[1])
        self._descend(0, fooling + shows)
        self.discriminator.requires_grad_(True)
        return {"generator": float(fooling.detach()), "au_fake": float(shows.detach())}

    def _descend(self, which: int, loss: Tensor) -> None:
        self.optimizers[which].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[which].step()

    def state(self) -> dict[str, Any]:
        nets = {"generator": self.generator, "discriminator": self.discriminator}
        return {
            **{name: net.state_dict() for name, net in nets.items()},
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "done": self.done,
            "settings": self.settings.identity(),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        self.generator.load_state_dict(saved["generator"])
        self.discriminator.load_state_dict(saved["discriminator"])
        self.average.load_state_dict(saved["average"])
        for optimizer, found in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(found)
        self.done = saved["done"]


def half_precision(device: torch.device, is_wanted: bool = True) -> torch.autocast:
    """bfloat16 where a GPU has it: float16 would need its losses scaled."""
    is_on = is_wanted and device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=is_on)


def fit(fitting: Fitting, folder: Path, seen: str, every: int = 500) -> Iterator[dict[str, float]]:
    """Fit to the end, from where the folder's checkpoint is; the losses of each step.

    `seen` is the hash of the images. Raises ValueError for a checkpoint of another fit.
    """
    rows = resume(fitting, folder, seen)
    while fitting.done < fitting.settings.steps:
        losses = fitting.step()
        rows.append({"step": fitting.done, **{n: round(v, 5) for n, v in losses.items()}})
        if fitting.done % every == 0 or fitting.done == fitting.settings.steps:
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            replace_file(folder / LOSSES, lines.encode())
            saved = {**fitting.state(), "seen": seen}
            replace_file(folder / CHECKPOINT, state.writing(saved), is_durable=True)
        yield losses


def resume(fitting: Fitting, folder: Path, seen: str) -> list[dict[str, float]]:
    """Go on from the folder's checkpoint, if there is one; the losses so far."""
    if not (folder / CHECKPOINT).is_file():
        return []
    try:
        saved = state.unpack((folder / CHECKPOINT).read_bytes())
        theirs, images = saved["settings"], saved["seen"]
    except Exception as error:  # a torn file raises errors of all sorts
        raise ValueError(
            f"'{folder / CHECKPOINT}' cannot be read: remove it to begin anew"
        ) from error
    ours = fitting.settings.identity()
    differ = [f"{n} {theirs.get(n)}, now {ours[n]}" for n in ours if theirs.get(n) != ours[n]]
    if images != seen:
        differ.append("other training images")
    if differ:
        raise ValueError(
            f"'{folder}' holds a GAN of {'; '.join(differ)}: give another --out, or the same flags"
        )
    fitting.restore(saved)
    lines = (folder / LOSSES).read_text().splitlines() if (folder / LOSSES).is_file() else []
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["step"] <= fitting.done]


@torch.inference_mode()
def draw_images(
    generator: Generator, labels: NDArray[np.int64], aus: NDArray[np.int8], seed: int
) -> NDArray[np.uint8]:
    """One image (N, 3, S, S) for each condition."""
    if not len(labels):
        return np.empty((0, 3, 1, 1), np.uint8)
    chance = Chance().manual_seed(_seed(seed, "images"))
    device = next(generator.parameters()).device
    noise = torch.randn(len(labels), generator.noise, generator=chance)
    out = []
    for rows in torch.arange(len(labels)).split(128):
        units = torch.from_numpy(aus[rows.numpy()].astype(np.float32))
        kind = torch.from_numpy(labels[rows.numpy()])
        made = generator(noise[rows].to(device), kind.to(device), units.to(device))
        out.append(((made.float() + 1) * 127.5).round().clamp(0, 255).byte().cpu())
    return torch.cat(out).numpy()


def _seed(*parts: object) -> int:
    return zlib.crc32(repr(parts).encode())
