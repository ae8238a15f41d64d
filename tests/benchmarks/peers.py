"""Methods of search by name, ours and others', and the version of each.

`SAMPLER+PRUNER` and `auto` are ours; others are `FAMILY:METHOD`. Each family has a module here with
`NAMES`, `MOST_WORKERS` and `run(name, course, seed, workers, first_rung)`; nothing of another
package is imported before a method of it is asked for.
"""

import ast
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peers_course import Course

from search.problems import Problem
from trainables.registry import unknown

HERE = Path(__file__).resolve().parent
SEARCH = HERE.parents[1] / "search"
NOT_OURS = ("problems", "curves")  # a method stays what it is when a problem is added


@dataclass(frozen=True)
class Family:
    """The methods of one package: the modules here that drive it, and what they need."""

    modules: tuple[str, ...]  # the first has the methods
    needs: dict[str, str]  # module -> distribution
    pip: str


OURS = Family(("peers_ours",), {"optuna": "optuna"}, "pip install -e '.[bench]'")
FAMILIES = {
    "ray": Family(
        ("peers_ray", "peers_optuna"),
        {"ray": "ray", "optuna": "optuna"},
        "pip install 'ray[tune]' optuna",
    ),
    "optuna": Family(("peers_optuna",), {"optuna": "optuna"}, "pip install optuna"),
    "syne": Family(
        ("peers_syne",),
        {"syne_tune": "syne-tune", "sklearn": "scikit-learn", "statsmodels": "statsmodels"},
        "pip install 'syne-tune[kde]==0.13.0' scikit-learn",
    ),
    "smac": Family(("peers_smac", "peers_space"), {"smac": "smac"}, "pip install smac==2.4.1"),
    "dehb": Family(
        ("peers_dehb", "peers_space"), {"dehb": "dehb"}, "pip install dehb==0.1.2 'numpy<2'"
    ),
    "neps": Family(
        ("peers_neps",),
        {"neps": "neural-pipeline-search"},
        "pip install neural-pipeline-search==0.17",
    ),
}


def family_of(method: str) -> Family:
    start, colon, _ = method.partition(":")
    if not colon:
        return OURS
    if start not in FAMILIES:
        raise LookupError(unknown("family of methods", start, FAMILIES))
    return FAMILIES[start]


def missing(method: str) -> str:
    """What to say of a method that cannot run here; "" of one that can."""
    family = family_of(method)
    lacks = [module for module in family.needs if find_spec(module) is None]
    why = f"no {', '.join(lacks)} here" if lacks else _import_error(method)
    return f"{method}: {why}; {family.pip}" if why else ""


def _import_error(method: str) -> str:
    """What goes wrong when all packages are there, such as one too new for another."""
    try:
        _module(method)
    except ImportError as error:
        return str(error)
    return ""


def check(method: str) -> int:
    """The most workers it can have. Raises LookupError for one that does not exist."""
    module = _module(method)
    own = method.rpartition(":")[2]
    if own not in module.NAMES:
        start = method.removesuffix(own)
        raise LookupError(unknown("method", method, [start + name for name in module.NAMES]))
    return int(module.MOST_WORKERS)


def version(method: str, problem: Problem) -> str:
    """A text that changes when the results of the method may change."""
    family, module = family_of(method), _module(method)
    if family is OURS:  # it says of which modules it consists
        return str(module.version(method, problem))
    packages = [f"{name} {metadata.version(name)}" for name in family.needs.values()]
    files = [HERE / f"{name}.py" for name in ("peers_course", *family.modules)]
    return ", ".join([*packages, digest(files)])


def run(
    method: str, problem: Problem, seed: int, workers: int, budget: float, first_rung: int
) -> Course:
    """One run of a method."""
    course = Course(problem, budget)
    _module(method).run(method.rpartition(":")[2], course, seed, workers, first_rung)
    return course


def _module(method: str) -> Any:
    return import_module(family_of(method).modules[0])


def digest(files: Sequence[Path]) -> str:
    """Eight hex digits of the code; its layout and comments do not count."""
    text = "".join(ast.dump(ast.parse(file.read_text())) for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def closure(start: str, is_deep: bool) -> list[Path]:
    """The files of `search` that a module of it imports, itself included, problems left out.

    `is_deep` counts imports within functions as well.
    """
    found: dict[str, Path] = {}
    queue = [start]
    while queue:
        name = queue.pop()
        path = SEARCH / f"{name}.py"
        if name in found or name in NOT_OURS or not path.exists():
            continue
        found[name] = path
        tree = ast.parse(path.read_text())
        queue += _imports(ast.walk(tree) if is_deep else tree.body)
    return [found[name] for name in sorted(found)]


def _imports(nodes: Iterable[ast.AST]) -> list[str]:
    """The modules of `search` that these statements import."""
    names: list[str] = []
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "search":
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("search."):
            names.append(str(node.module).removeprefix("search."))
    return names
