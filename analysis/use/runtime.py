"""The ONNX file at work; no torch. N images, S pixels a side, K classes, A AUs."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.use import folder as files
from trainables.data.cores import usable_cores

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Said = tuple[NDArray[np.float32], NDArray[np.float32]]  # (N, K), (N, A) or (N, 0)
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def needs(extra: str, *packages: str) -> None:
    """Raise ValueError, saying how to install them, where a package is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"this needs {' and '.join(missing)}: pip install 'fer-search[{extra}]' (or only "
            f"{' '.join(missing)})"
        )


def session(path: Path) -> "InferenceSession":
    """The network, ready to run: on a GPU where onnxruntime knows one, else on the CPU.

    Raises ValueError where onnxruntime is missing or cannot read the file.
    """
    needs("predict", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = usable_cores()
    found = [name for name in PROVIDERS if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=found)
    except Exception as error:  # onnxruntime has a dozen kinds of its own
        raise ValueError(f"onnxruntime cannot read '{path}': {error}") from error


def run(session: "InferenceSession", images: NDArray[np.uint8]) -> Said:
    """Probabilities of uint8 RGB images (N, 3, S, S)."""
    out = session.run(None, {files.INPUT: images})
    probs = np.asarray(out[0], np.float32)
    empty = np.zeros((len(probs), 0), np.float32)
    return probs, np.asarray(out[1], np.float32) if len(out) > 1 else empty
