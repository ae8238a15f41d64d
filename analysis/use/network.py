"""The exported network in PyTorch, and as ONNX. N images, S pixels a side, K classes, A AUs.

(N, 3, S, S) uint8 RGB -> (N, K) probabilities and (N, A) AU probabilities: scaling, normalisation,
softmax, temperatures, the mean of the members and the adjustment are inside. m members.
"""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.use import folder as files
from analysis.use.runtime import Said, needs

TINY = 1e-6  # the smallest probability whose logarithm is taken: as in analysis/library.py
OPSET = 18
LARGEST = 1_800_000_000  # bytes of weights in one ONNX file; protobuf ends at 2 GiB


class Member(nn.Module):
    """One trial, or the mean of its folds: images in [0, 1] -> its probabilities at its
    temperature, its AU probabilities. If flipped, classes are those of the image and its mirror
    image; AUs those of the image, as they were measured."""

    def __init__(
        self, folds: Sequence[nn.Module], temperature: float = 1.0, is_flipped: bool = False
    ) -> None:
        super().__init__()
        self.folds, self.temperature = nn.ModuleList(folds), temperature
        self.is_flipped = is_flipped

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        outs = [fold(images) for fold in self.folds]
        mirrored = [fold(images.flip(3)) for fold in self.folds] if self.is_flipped else []
        probs = mean([out.logits.softmax(1) for out in (*outs, *mirrored)])
        if self.temperature != 1:
            probs = (probs.clamp_min(TINY).log() / self.temperature).softmax(1)
        knows = outs[0].au_logits is not None
        return probs, mean([out.au_logits.sigmoid() for out in outs]) if knows else None


def mean(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).mean(0)


class Network(nn.Module):
    """All members, and how they become one (`analysis.ensemble.predict`, in torch)."""

    coefficients: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        members: Sequence[Member],
        weights: Sequence[float],
        coefficients: Tensor | None = None,  # (m K + 1, K)
        shift: Tensor | None = None,  # (K,)
    ) -> None:
        super().__init__()
        self.members, self.weights = nn.ModuleList(members), tuple(weights)
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("shift", shift)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Probabilities (N, K), and (N, A) of the AUs if a member knows them."""
        pixels = images.float() / 255
        said = [member(pixels) for member in self.members]
        probs = self._joined([own for own, _ in said])
        if self.shift is not None:
            probs = probs * torch.exp(-self.shift)
            probs = probs / probs.sum(1, keepdim=True)
        known = [
            (w, aus) for w, (_, aus) in zip(self.weights, said, strict=True) if aus is not None
        ]
        if not known:
            return (probs,)
        total = sum(w for w, _ in known)
        return probs, torch.stack([w / total * aus for w, aus in known]).sum(0)

    def _joined(self, own: list[Tensor]) -> Tensor:
        if self.coefficients is None:
            return torch.stack([w * p for w, p in zip(self.weights, own, strict=True)]).sum(0)
        logs = torch.cat([p.clamp_min(TINY).log() for p in own], 1)
        return (logs @ self.coefficients[:-1] + self.coefficients[-1]).softmax(1)


@torch.inference_mode()
def say(network: nn.Module, images: NDArray[np.uint8]) -> Said:
    """Probabilities (N, K) and AU probabilities (N, A), or (N, 0), in PyTorch."""
    out = network(torch.from_numpy(images))
    probs = out[0].numpy()
    return probs, out[1].numpy() if len(out) > 1 else np.zeros((len(probs), 0), np.float32)


def write_onnx(network: nn.Module, size: int, about: Mapping[str, Any], path: Path) -> None:
    """The network as ONNX with a free batch; the names of classes and AUs are in its metadata.

    Raises ValueError where packages are missing or some operation has no ONNX.
    """
    program = as_onnx(network, size, list(about["outputs"]))
    for name in ("class_names", "au_names", "basic_names", "components", "input"):
        program.model.metadata_props[name] = json.dumps(about[name])
    program.model.producer_name = files.FORMAT
    total = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    program.save(path, external_data=total > LARGEST)


def as_onnx(network: nn.Module, size: int, outputs: list[str]) -> Any:
    """What torch.onnx makes of a network of images, its outputs by these names.

    Raises ValueError where packages are missing or some operation has no ONNX.
    """
    needs("export", "onnx", "onnxscript")
    example = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    with _quiet():
        try:
            return torch.onnx.export(
                network.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[files.INPUT],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        except Exception as error:  # the exporter raises a dozen kinds
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise ValueError(f"this network cannot be written as ONNX: {reason}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own reports of progress and deprecation."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
