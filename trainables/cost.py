"""What a model costs in use: its size, and the time it takes for one image."""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

WARM_UP, REPEATS = 3, 15


def parameters(model: nn.Module) -> int:
    """How many numbers the model has learned."""
    return sum(p.numel() for p in model.parameters())


@torch.inference_mode()
def latency_ms(model: nn.Module, image_size: int) -> float:
    """Median milliseconds from one image (1, 3, S, S) to its logits, in the model's own precision.

    It depends on the machine, its load and the threads in use: compare within a run.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, image_size, image_size, device=device)
    model.eval()

    def run() -> None:
        model(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return median_ms(run, REPEATS, WARM_UP)


def median_ms(run: Callable[[], object], repeats: int, warm_up: int = 0) -> float:
    """Median milliseconds of a call, the first ones left out."""
    times = []
    for _ in range(warm_up + repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return 1000 * median(times[warm_up:])
