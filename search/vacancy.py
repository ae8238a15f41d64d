"""The memory of a GPU: that a trial's share of it is free before its first step.

Ray gives a GPU away as soon as a worker is gone, which may be before its memory is released; and
processes that Ray does not know may hold some. Trials that share a GPU are kept to their shares.
"""

import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

ALLOWED = 0.9  # of its share; what the GPU and each process need for themselves takes the rest
PATIENCE_SECONDS = 30.0  # for the memory of a worker that is gone
LOOK_SECONDS = 0.5
ASK = "nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv,noheader"

Look = Callable[[], tuple[int, int]]  # bytes free to this process, and bytes in all


class Occupied(Exception):
    """The memory of a GPU is not free: no fault of the trial."""

    def __init__(self, problem: str, node: str = "") -> None:
        super().__init__(problem, node)  # in `args`, so that it survives Ray's and Tune's pickling
        self.problem, self.node = problem, node

    def __str__(self) -> str:
        return self.problem

    def __reduce__(self) -> Any:
        return Occupied, self.args


def check_gpu(gpus: float, node: str = "") -> None:
    """Raise Occupied unless this process may use its share of a GPU; keep it to that share."""
    if not gpus:
        return
    import torch

    if not torch.cuda.is_available():  # Ray was told of GPUs that are not there
        return
    if problem := occupancy(gpus, free_memory):
        raise Occupied(f"{problem}; held by {holders() or 'unknown processes'}", node)
    if gpus < 1:
        torch.cuda.set_per_process_memory_fraction(ALLOWED * gpus)


def occupancy(share: float, look: Look, patience: float = PATIENCE_SECONDS) -> str:
    """How much of a GPU is free, in words, if it stays less than the share allows; else ""."""
    until = time.monotonic() + patience
    while True:
        free, total = look()
        if free >= ALLOWED * share * total:
            return ""
        if time.monotonic() >= until:
            return (
                f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB of GPU memory are free, a trial "
                f"needs {ALLOWED * share:.0%} (waited {patience:g} s)"
            )
        time.sleep(LOOK_SECONDS)


def free_memory() -> tuple[int, int]:
    """Free bytes of this process' GPU, what it holds itself included, and all bytes."""
    import torch

    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        return 0, 1  # too full even to be asked
    return free + torch.cuda.memory_reserved(), total


def holders() -> str:
    """The processes on this process' GPU, as far as nvidia-smi tells; "" where it does not."""
    own = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]
    words = ASK.split() + (["-i", own] if own else [])
    try:
        told = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    apps = [line.split(", ") for line in told.splitlines() if line.count(", ") == 2]
    return "; ".join(
        f"pid {pid} ({name}, {used})" for pid, name, used in apps if pid != str(os.getpid())
    )
