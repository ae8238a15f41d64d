"""Ensemble selection by others, each from an environment of its own.

    ENV/bin/python tests/benchmarks/ensemble_peers.py autogluon FOLDER

reads FOLDER/*.npz (val, labels) and writes FOLDER/NAME.autogluon.json: weights and seconds.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Select = Callable[[np.ndarray, np.ndarray], np.ndarray]


def autogluon() -> tuple[str, Select]:
    """EnsembleSelection as TabularPredictor calls it: 25 rounds, here on the log loss."""
    import autogluon.core
    from autogluon.core.metrics import log_loss
    from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection

    def select(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        peer = EnsembleSelection(25, "multiclass", log_loss)
        peer.fit(list(probs.astype(np.float64)), labels)
        return np.asarray(peer.weights_)

    return f"autogluon.core {autogluon.core.__version__}", select


def deephyper() -> tuple[str, Select]:
    """GreedySelector on the cross-entropy: at most 20 members, the five best from the start."""
    import deephyper
    from deephyper.ensemble.aggregator import MixedCategoricalAggregator
    from deephyper.ensemble.loss import CategoricalCrossEntropy
    from deephyper.ensemble.selector import GreedySelector

    def select(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        peer = GreedySelector(
            CategoricalCrossEntropy(), MixedCategoricalAggregator(), k=20, k_init=5, max_it=100
        )
        members, weights = peer.select(labels, list(probs.astype(np.float64)))
        out = np.zeros(len(probs))
        out[members] = weights
        return out

    return f"deephyper {deephyper.__version__}", select


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    version, select = {"autogluon": autogluon, "deephyper": deephyper}[name]()
    for path in sorted(folder.glob("*.npz")):
        target = path.with_suffix(f".{name}.json")
        if target.exists():
            continue
        with np.load(path) as file:
            probs, labels = file["val"], file["labels"]
        started = time.perf_counter()
        weights = select(probs, labels)
        seconds = time.perf_counter() - started
        found = {"version": version, "seconds": seconds, "weights": weights.tolist()}
        target.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
