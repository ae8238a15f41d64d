"""The settings of a pretraining."""

from dataclasses import asdict, dataclass
from typing import Any

from trainables.config import Part


@dataclass(frozen=True)
class Settings:
    """All that the weights depend on, beside the images."""

    backbone: str
    method: Part
    image_size: int = 64
    epochs: int = 100
    batch_size: int = 64
    base_lr: float = 1.5e-3  # for a batch of 256; the rate grows with the batch
    weight_decay: float = 0.05
    warmup: float = 0.05  # share of the epochs
    weights: str = "none"
    control: str = "none"
    seed: int = 0

    @property
    def lr(self) -> float:
        return self.base_lr * self.batch_size / 256

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "method": asdict(self.method)}
