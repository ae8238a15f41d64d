"""What a masked method has learnt, for the eye. N images, S pixels a side."""

import cv2
import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from trainables.pretraining.pretext import Pretext

GAP = 2  # white pixels between the images


def draw(pretext: Pretext, images: Tensor, generator: Generator) -> bytes | None:
    """A PNG of images as they are, masked, and reconstructed, a row each; None where none is."""
    if pretext.picture is None:
        return None
    pretext.module.eval()
    with torch.no_grad():
        columns = pretext.picture(images, generator)
    framed = [F.pad(column.float().cpu(), (0, GAP, 0, GAP), value=1.0) for column in columns]
    pixels = torch.cat(framed, 3).permute(0, 2, 3, 1).flatten(0, 1)
    _, code = cv2.imencode(".png", (pixels.numpy()[..., ::-1] * 255).round().astype(np.uint8))
    return code.tobytes()
