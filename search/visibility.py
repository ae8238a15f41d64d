"""Whether every node sees the run folder, the data and the weights, under the same path.

A token that the driver writes into the run folder is read on each node before the search begins,
and by every worker before its first trial: a node that joined later and is blind loses no trial
and gets no more. At the top only the standard library: `blindness` goes to nodes without our code.
"""

import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

TOKEN = ".token"
PATIENCE_SECONDS = 10.0  # a network disk may show a new file late
ANSWER_SECONDS = 120.0  # for the tasks on all nodes together
Need = tuple[str, str]  # a path, and what is expected there


class Blind(Exception):
    """A node does not see what a trial needs: no fault of the trial."""

    def __init__(self, problem: str, node: str = "") -> None:
        super().__init__(problem, node)  # in `args`, so that it survives Ray's and Tune's pickling
        self.problem, self.node = problem, node

    def __str__(self) -> str:
        return self.problem

    def __reduce__(self) -> Any:
        return Blind, self.args


def token(root: Path) -> Need:
    """What tells this run folder from another one at the same path; written where it is missing."""
    path = root / TOKEN
    if not path.exists():
        path.write_text(uuid.uuid4().hex)
    return str(path), path.read_text()


def needs(root: Path, others: Iterable[Path]) -> tuple[Need, ...]:
    """What each node must see; a copy on its own disk will do for all but the run folder."""
    paths = sorted({path.resolve() for path in others})
    return (token(root.resolve()), *((str(path), outline(str(path))) for path in paths))


def outline(path: str) -> str:
    """What lies at a path, in a line: the size of a file, names and sizes in a folder."""
    there = Path(path)
    if not there.is_dir():
        return str(there.stat().st_size)
    files = sorted((file.name, file.stat().st_size) for file in there.iterdir() if file.is_file())
    return " ".join(f"{name}:{size}" for name, size in files if not name.startswith("."))


def blindness(wanted: Sequence[Need], patience: float = PATIENCE_SECONDS) -> str:
    """What this node does not see or sees otherwise, in a sentence; "" when all is well."""
    until = time.monotonic() + patience
    for path, content in wanted:
        while problem := _compare(path, content):
            if time.monotonic() >= until:
                return problem
            time.sleep(0.5)
    return ""


def _compare(path: str, content: str) -> str:
    try:
        if Path(path).name == TOKEN:
            is_same = Path(path).read_text() == content
        else:
            is_same = outline(path) == content
    except OSError as error:
        return f"'{path}' cannot be read there ({error.strerror or error})"
    return "" if is_same else f"what lies at '{path}' there is not what the driver sees"


def check_worker(wanted: Sequence[Need], patience: float = PATIENCE_SECONDS) -> None:
    """Raise Blind, naming this node, unless this process sees all of it."""
    if problem := blindness(wanted, patience):
        import ray

        is_on_ray = ray.is_initialized()
        raise Blind(problem, ray.get_runtime_context().get_node_id() if is_on_ray else "")


def check_nodes(wanted: Sequence[Need], patience: float = PATIENCE_SECONDS) -> None:
    """Raise OSError naming the nodes that do not see all of it; asks each, the driver's own too."""
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    import search.visibility

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if [node["NodeID"] for node in nodes] == [ray.get_runtime_context().get_node_id()]:
        return
    cloudpickle.register_pickle_by_value(search.visibility)  # nodes need not have our code
    try:
        probe = ray.remote(num_cpus=0, max_retries=1)(blindness)
        asked = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[probe.options(scheduling_strategy=there).remote(wanted, patience)] = node
    finally:
        cloudpickle.unregister_pickle_by_value(search.visibility)
    blind = [
        f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}): {problem}"
        for future, node in asked.items()
        if (problem := _answer(future))
    ]
    if blind:
        raise OSError(
            "; ".join(blind)
            + ". Put the run folder (--runs), the data cache ($XDG_CACHE_HOME) and "
            "the weights on a disk that all nodes mount under the same path, or stop those nodes"
        )


def _answer(future: Any) -> str:
    import ray

    with suppress(ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError):
        try:
            return str(ray.get(future, timeout=ANSWER_SECONDS))
        except ray.exceptions.GetTimeoutError:
            return f"it does not answer within {ANSWER_SECONDS:g} s"
        except ray.exceptions.TaskUnschedulableError:
            return ""  # it has left meanwhile
        except ray.exceptions.RayError as error:
            return str(error).strip().splitlines()[-1]
    return ""
