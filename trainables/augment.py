"""The pipelines of augmentation (AUGMENTS), batched on the device. N batch, K classes.

Importing this module registers every augmentation and mixing rule. It is written out because
torchvision v2 draws one set of parameters for a whole batch, and kornia draws from the global
generator. The distribution is the same for all classes: a minority-only one is a label in itself,
and is here as a control.
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator

from trainables import mixing, protection, trivial
from trainables.batch import AUGMENTS, MIXERS, Batch, Counts, Transform, chain, join, take
from trainables.config import SHORTCUTS
from trainables.device import bring
from trainables.geometry import flip_and_affine
from trainables.photometric import degrade, erase, photometric

__all__ = ["AUGMENTS", "MIXERS", "Batch", "Transform", "mixing", "protection", "trivial"]

log = logging.getLogger(__name__)


@AUGMENTS.register
def light(class_counts: Counts, au_names: Sequence[str]) -> Transform:
    """Flip, small affine, brightness and contrast."""
    return chain(
        flip_and_affine(degrees=8, scale=0.08, shift=0.04), photometric(light=0.2, contrast=0.2)
    )


@AUGMENTS.register
def medium(
    class_counts: Counts,
    au_names: Sequence[str],
    *,
    blur: float = 0.0,
    low_resolution: float = 0.0,
    jpeg: float = 0.0,
) -> Transform:
    """Flip, affine, brightness, contrast, grey and erasing.

    With a chance each, off by default: blur, low resolution, compression.
    """
    return chain(
        flip_and_affine(degrees=15, scale=0.12, shift=0.06),
        photometric(light=0.35, contrast=0.35, grey=0.15),
        degrade(blur, low_resolution, jpeg),
        erase(probability=0.25, area=0.1),
    )


@AUGMENTS.register
def minority_only(class_counts: Counts, au_names: Sequence[str]) -> Transform:
    """Strong (`erase_crop`) for classes with fewer images than the median, light for the rest.

    A control, with a shortcut risk: the artefact itself is a label cue. A grey square or a cut chin
    is seen in training on rare classes only, so a network can learn that instead of the face, and
    has it in no test image.
    """
    log.warning("augment 'minority_only': %s", SHORTCUTS["augment", "minority_only"])
    is_rare = torch.from_numpy(np.asarray(class_counts < np.median(class_counts)))
    mild, strong = light(class_counts, au_names), protection.erase_crop(class_counts, au_names)

    def apply(batch: Batch, generator: Generator) -> Batch:
        plain, hard = mild(batch, generator), strong(batch, generator)
        chosen = bring(is_rare, batch.targets.device)[batch.targets.argmax(1)]
        rows = torch.arange(len(chosen), device=chosen.device)
        return take(join(plain, hard), torch.where(chosen, len(chosen) + rows, rows))

    return apply
