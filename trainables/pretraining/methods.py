"""All methods of pretraining, registered by the modules that hold them."""

from trainables.pretraining import contrastive, mae, masked_conv
from trainables.pretraining.pretext import METHODS

__all__ = ["METHODS", "contrastive", "mae", "masked_conv"]
