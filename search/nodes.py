"""The nodes of a cluster as they come and go: how many trials fit, who is gone, who is avoided."""

import logging
import re
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import ray
from ray import tune
from ray.util.placement_group import PlacementGroup, placement_group

from search.cluster import PLACEMENTS, Resources, check_ranks, count_ranks

log = logging.getLogger(__name__)

Node = Mapping[str, Any]  # an entry of ray.nodes()
LABEL = "ray.io/node-id"  # Ray gives it to every node
LOOK_SECONDS = 2.0
REMIND_SECONDS = 60.0
KNOCK_SECONDS = 1.0
REFUSALS = 3  # of each of a node's GPUs, and no row between, until it is avoided
AVOIDED: set[str] = set()  # nodes that get no trial any more; Tune copies a `Group`, so not in it


class Group(tune.PlacementGroupFactory):  # type: ignore[misc]  # Ray has no types
    """Where the ranks of a trial go: anywhere but on the nodes avoided when they are placed."""

    def to_placement_group(self) -> PlacementGroup:
        bundles, strategy = self.bundles, self.strategy
        if not AVOIDED:
            return placement_group(bundles, strategy)
        others = {LABEL: f"!in({','.join(sorted(AVOIDED))})"}
        return placement_group(bundles, strategy, bundle_label_selector=[others] * len(bundles))


def group_of(resources: Resources) -> Group:
    return Group([resources.bundle] * resources.size, strategy=PLACEMENTS[resources.placement])


def room(resources: Resources, nodes: Iterable[Node]) -> int:
    """How many trials these nodes can run at once; a rank does not span two of them."""
    there = [node["Resources"] for node in nodes]
    slots = [count_ranks(resources, n.get("CPU", 0), n.get("GPU", 0)) for n in there]
    if resources.placement == "strict-pack":
        return sum(ranks // resources.size for ranks in slots)
    return sum(slots) // resources.size


class Nodes:
    """What there is, looked at now and then. State: the last look, and losses not yet explained."""

    def __init__(self, resources: Resources) -> None:
        check_ranks(resources)
        self.resources = resources
        self.alive: list[Node] = []
        self.workers = 0  # trials that fit
        self._looked = self._told = 0.0
        self._refusals = Counter[str]()  # by node
        AVOIDED.clear()
        self._count()

    def _count(self) -> None:
        self._looked = time.monotonic()
        self.alive = [node for node in ray.nodes() if node["Alive"]]
        used = [node for node in self.alive if node["NodeID"] not in AVOIDED]
        self.workers = room(self.resources, used)

    def look(self) -> bool:
        """Whether more or fewer trials fit than before; asks Ray every few seconds at the most."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return False
        before = self.workers
        self._count()
        if not self.workers and self._looked - self._told > REMIND_SECONDS:
            log.warning("no node has room for a trial (%s): waiting for one to join", self.asked)
            self._told = self._looked
        return self.workers != before

    @property
    def asked(self) -> str:
        bundle, size = self.resources.bundle, self.resources.size
        each = " and ".join(f"{bundle[kind]:g} {kind}s" for kind in bundle)
        return f"{size} x {each}" if size > 1 else each

    @property
    def allowed(self) -> int:
        """How many trials may be handed out.

        One in reserve: a worker that is free finds a trial waiting, proposed on fresh results, and
        an autoscaler sees a demand. It sees all of --max-concurrent, where that is given.
        """
        most = self.resources.max_concurrent
        if most and self.resources.may_grow:
            return most
        return min(most or self.workers + 1, self.workers + 1)

    def check(self) -> None:
        """Raise ValueError where no node has room for a trial and none will join."""
        if self.workers or self.resources.may_grow:
            return
        largest = [
            f"{node['Resources'].get('CPU', 0):g} CPUs and {node['Resources'].get('GPU', 0):g} GPUs"
            for node in self.alive
        ]
        raise ValueError(
            f"a trial asks for {self.asked}, for which no node has room; there are "
            f"{'; '.join(largest) or 'none'}: lower --cpus-per-trial, --gpus-per-trial or "
            "--cpu-ranks"
        )

    def is_gone(self, node: str) -> bool:
        """Whether that node has left the cluster; Ray itself notices 15 seconds later."""
        for entry in ray.nodes():
            if entry["NodeID"] == node:
                return not entry["Alive"] or not _answers(entry)
        return bool(node)

    def refuse(self, node: str, why: str) -> bool:
        """Tell that a GPU there was not free; whether none has been for long."""
        log.warning("a worker was ended, its trial goes elsewhere: %s", why)
        self._refusals[node] += 1
        slots = room(self.resources, [n for n in self.alive if n["NodeID"] == node])
        return self._refusals[node] >= REFUSALS * max(1, slots)

    def welcome(self, node: str) -> None:
        """A trial has trained there."""
        self._refusals.pop(node, None)

    def avoid(self, node: str, why: str) -> bool:
        """Place nothing there from now on; whether other nodes have room."""
        if node and node not in AVOIDED:
            AVOIDED.add(node)
            names = {n["NodeID"]: n["NodeManagerHostname"] for n in self.alive}
            log.warning("node %s (%s) gets no trials: %s", names.get(node, "?"), node[:8], why)
        self._count()
        return bool(node) and self.workers > 0


def _answers(node: Node) -> bool:
    where = (node["NodeManagerAddress"], node["NodeManagerPort"])
    with suppress(OSError):
        socket.create_connection(where, timeout=KNOCK_SECONDS).close()
        return True
    return False


def node_of(error: BaseException | None) -> str:
    """The node on which an actor died, as far as its error or Ray can tell; else ""."""
    told = re.search(r"[Nn]ode [Ii][Dd]: ([0-9a-f]{56})", str(error))
    if told:
        return told[1]
    with suppress(Exception):  # private, and only needed where an actor died before its first row
        entry = ray._private.state.actors(getattr(error, "actor_id", None))
        return str(entry["Address"]["NodeID"])
    return ""
