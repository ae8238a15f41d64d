"""Every plug-in of a network can be exported: ONNX says what PyTorch says, for any batch."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from analysis.use.network import as_onnx
from trainables.attention import ATTENTIONS
from trainables.backbones import BACKBONES
from trainables.config import TrialConfig
from trainables.data.tables import CLASS_PAIRS
from trainables.face_backbones import FACE_BACKBONES
from trainables.fusion import FUSIONS
from trainables.heads import HEADS
from trainables.local import LOCALS
from trainables.model import build_model
from trainables.reading import READINGS

SIZE = 32
AUS: dict[str, Any] = {"au_loss": "bce", "au_weight": 0.5}
TIMM = ("test_vit", "test_convnext")  # a dozen others were tried by hand: analysis/README.md
LARGE = {f.__name__ for f in FACE_BACKBONES}  # tens of millions of parameters: tried by hand
CASES: dict[str, list[dict[str, Any]]] = {
    "attention": [
        *({"attention": n, **AUS} for n in ATTENTIONS),
        {"attention": "se", "attention_stage": "middle"},
    ],
    "fusion": [{"fusion": n} for n in FUSIONS],
    "head, local branch, AU reading": [
        *({"head": n} for n in HEADS),
        *({"local": n} for n in LOCALS),
        *({"au_reading": n, **AUS} for n in READINGS),
    ],
    "backbone": [{"backbone": n} for n in (*BACKBONES, *TIMM) if n not in LARGE],
}


class SideBySide(nn.Module):
    """Several networks on the same images."""

    def __init__(self, models: list[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outs = [model(images.float() / 255) for model in self.models]
        return tuple(
            out.logits if out.au_logits is None else torch.cat([out.logits, out.au_logits], 1)
            for out in outs
        )


class Pools(nn.Module):
    """Three maps of the channels of a small_resnet, quick to trace."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels
        self.bring = nn.ModuleList(nn.Conv2d(3, c, 1) for c in channels)

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        return (images - 0.5) / 0.25

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        sizes = (4, 8, 16)
        return [
            layer(nn.functional.avg_pool2d(images, size)).relu()
            for layer, size in zip(self.bring, sizes, strict=True)
        ]


def shaken(model: nn.Module) -> nn.Module:
    """With parameters and statistics as after training: nothing is zero or one any more."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.05 * torch.rand_like(tensor))
    return model.eval()


@pytest.mark.parametrize("kind", CASES)
def test_every_plug_in_says_the_same_in_onnx(kind: str) -> None:
    torch.manual_seed(0)
    cases, models = CASES[kind], []
    for case in cases:
        flat = {"backbone": "small_resnet", "image_size": SIZE, **case}
        config = TrialConfig.from_flat(flat)
        model = build_model(config, len(CLASS_PAIRS), 5, CLASS_PAIRS, 6)
        if kind != "backbone":
            model.backbone = Pools(model.backbone.channels)
        models.append(shaken(model))
    names = [" ".join(map(str, case.values())) + f" {k}" for k, case in enumerate(cases)]
    network = SideBySide(models)
    program = as_onnx(network, SIZE, names)
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for count in (1, 5):
        images = torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8)
        with torch.inference_mode():
            wanted = network(images)
        found = session.run(names, {"images": images.numpy()})
        for name, mine, theirs in zip(names, found, wanted, strict=True):
            scale = max(1.0, float(theirs.abs().max()))
            np.testing.assert_allclose(mine, theirs, atol=1e-4 * scale, err_msg=name)
