"""Measured learning curves as problems: the YAHPO Gym surrogates (Pfisterer et al. 2022).

LCBench: 7 numbers of a multilayer perceptron on a tabular data set (Zimmer et al. 2021), 51 epochs.
NB301: a cell of the DARTS space on CIFAR-10 (Zela et al. 2022), 34 choices, 98 epochs.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.problems import PART, PROBLEMS, Problem, own_settings, space_of
from spaces.space import Choice, Dimension, IntRange, LogUniform, Uniform, Value

Array = NDArray[np.float64]
FOLDER = Path(__file__).parents[1] / "tests" / "benchmarks" / "data"
LCBENCH_EPOCHS, NB301_EPOCHS = 51, 98
LCBENCH = (
    "batch_size",
    "learning_rate",
    "momentum",
    "weight_decay",
    "num_layers",
    "max_units",
    "max_dropout",
)  # in the order in which the surrogate takes them


def problem(name: str, folder: Path = FOLDER) -> Problem:
    """A formula of `problems.py`, or measured curves: `lcbench:TASK` or `nb301`."""
    if name in PROBLEMS:
        return PROBLEMS[name]()
    kind, _, task = name.partition(":")
    known: dict[str, Callable[[str, Path], Problem]] = {"lcbench": lcbench, "nb301": nb301}
    if kind not in known:
        raise LookupError(f"no curves '{name}'; known: lcbench:TASK, nb301")
    return known[kind](task, folder)


@cache
def session(path: Path) -> Any:
    """The surrogate, one thread."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("learning curves need onnxruntime: pip install -e '.[bench]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def references(name: str, folder: Path) -> tuple[float, float]:
    """The best and the typical score, from errors in percent."""
    known = json.loads((folder / "references.json").read_text())
    if name not in known:
        raise LookupError(f"no references for '{name}'; known: {', '.join(known)}")
    best, typical = known[name]
    return 100 - best, 100 - typical


def seconds_of(elapsed: Array) -> Array:
    """Elapsed time made to rise."""
    rising = np.maximum.accumulate(np.maximum(elapsed, 1e-3))
    return np.asarray(rising + np.arange(1, len(rising) + 1) * 1e-6)


def lcbench(task: str, folder: Path = FOLDER) -> Problem:
    """Validation accuracy; starts after the first epoch, for before it the net is untrained."""
    place = folder / "lcbench"
    codes = json.loads((place / "encoding.json").read_text())["OpenML_task_id"]
    if task not in codes:
        raise LookupError(f"no LCBench task '{task}'; known: {', '.join(sorted(codes)[1:])}")
    settings = json.loads((place / "config_space.json").read_text())["hyperparameters"]
    dims = {h["name"]: dimension(h) for h in settings if h["name"] in LCBENCH}

    def curve(flat: Mapping[str, Value]) -> tuple[Array, Array]:
        own = own_settings(flat)
        table = lcbench_table(codes[task], np.array([[float(own[n]) for n in LCBENCH]]), place)[0]
        return np.clip(table[:, 1], 0, 100).astype(float), seconds_of(table[:, 0].astype(float))

    name = f"lcbench:{task}"
    ordered = space_of(name, {n: dims[n] for n in LCBENCH}, LCBENCH_EPOCHS)
    return Problem(name, ordered, LCBENCH_EPOCHS, cached(curve), *references(name, folder))


def lcbench_table(code: int, settings: Array, place: Path) -> NDArray[np.float32]:
    """(N, 7) settings -> (N, epochs, 6): seconds, accuracy, ..."""
    epochs = np.arange(2, LCBENCH_EPOCHS + 2)
    n, m = len(settings), len(epochs)
    columns = np.empty((n * m, 8), np.float32)
    columns[:, 0], columns[:, 1:] = np.tile(epochs, n), np.repeat(settings, m, 0)
    inputs = {"x_cat": np.full((n * m, 1), code, np.int32), "x_cont": columns}
    out: NDArray[np.float32] = session(place / "model.onnx").run(None, inputs)[0]
    return out.reshape(n, m, -1)


def dimension(h: Mapping[str, Any]) -> Dimension:
    """One of YAHPO's hyper-parameters; its default is the middle of the range."""
    low, high, is_log = h["lower"], h["upper"], bool(h["log"])
    middle = (low * high) ** 0.5 if is_log else (low + high) / 2
    if h["type"] == "uniform_int":
        return IntRange(low, high, round(middle), log=is_log)
    return LogUniform(low, high, middle) if is_log else Uniform(low, high, middle)


def nb301(_: str = "", folder: Path = FOLDER) -> Problem:
    """Validation accuracy of an architecture."""
    place, prefix = folder / "nb301", "NetworkSelectorDatasetInfo_COLON_darts_COLON_"
    codes = json.loads((place / "encoding.json").read_text())
    listed = json.loads((place / "config_space.json").read_text())
    settings = [h for h in listed["hyperparameters"] if "choices" in h]  # all but the epoch
    options = {h["name"].removeprefix(prefix): h["choices"] for h in settings}
    when = {
        c["child"].removeprefix(prefix): (c["parent"].removeprefix(prefix), c["values"])
        for c in listed["conditions"]
    }
    cells = ("normal", "reduce")
    edges = [f"edge_{cell}_{i}" for cell in cells for i in range(14)]
    nodes = [f"inputs_node_{cell}_{i}" for cell in cells for i in (3, 4, 5)]
    dims: dict[str, Dimension] = {}
    for name in nodes + edges:
        choices = tuple(options[name])
        parent, values = when.get(name, ("", ()))
        condition = {f"{PART}.{parent}": tuple(values)} if parent else {}
        dims[name] = Choice(choices, choices[0], condition)

    def curve(flat: Mapping[str, Value]) -> tuple[Array, Array]:
        own = own_settings(flat)
        row = [codes[prefix + name][own.get(name, "#na#")] for name in edges + nodes]
        inputs = {
            "x_cat": np.tile(np.array(row, np.int32), (NB301_EPOCHS, 1)),
            "x_cont": np.arange(1, NB301_EPOCHS + 1, dtype=np.float32)[:, None],
        }
        out = session(place / "model.onnx").run(None, inputs)[0].astype(float)
        return 100 * np.clip(out[:, 0], 0, 1), seconds_of(out[:, 2])

    best, typical = references("nb301", folder)
    return Problem(
        "nb301", space_of("nb301", dims, NB301_EPOCHS), NB301_EPOCHS, cached(curve), best, typical
    )


def cached(curve: Any, size: int = 4000) -> Any:
    """The curve function with a memory of its latest answers."""
    memory: dict[tuple[tuple[str, Value], ...], tuple[Array, Array]] = {}

    def remembered(flat: Mapping[str, Value]) -> tuple[Array, Array]:
        key = tuple(sorted(own_settings(flat).items()))
        if key not in memory:
            if len(memory) >= size:
                memory.clear()
            memory[key] = curve(flat)
        return memory[key]

    return remembered
