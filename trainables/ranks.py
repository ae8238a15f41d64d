"""Ranks: the processes that train one trial together. A rank by itself does nothing of this.

All ranks run the same generator on the same whole batches, each its own share of the images, and
call these functions in the same order. Small things travel between CPUs (gloo), gradients between
the devices (NCCL on GPUs).
"""

import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed
from torch._C._distributed_c10d import Store, TCPStore  # torch.distributed names them untyped

MEET_SECONDS = 120.0  # for all ranks to find one another
TALK_SECONDS = 300.0  # for one exchange: a rank that takes longer is lost
SIOCGIFADDR = 0x8915  # Linux: the address of a network interface

Built = TypeVar("Built")


@dataclass(frozen=True)
class Ranks:
    """Which of how many ranks this process is, and what it exchanges with the others."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the record."""
        return self.rank == 0

    def share(self, count: int) -> tuple[slice, float]:
        """Which of `count` images are ours, and the factor of our part of a sum over all of them.

        With it the mean over the ranks, which is what DistributedDataParallel takes, is the sum.
        Of fewer images than ranks each rank takes all.
        """
        if count < self.size:
            return slice(0, count), 1.0
        ends = [count * rank // self.size for rank in (self.rank, self.rank + 1)]
        return slice(*ends), float(self.size)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean over the ranks of each number; not finite everywhere if it is so anywhere."""
        if self.size == 1:
            return dict(values)
        numbers = torch.tensor(list(values.values()), dtype=torch.float64)
        distributed.all_reduce(numbers)
        return dict(zip(values, (numbers / self.size).tolist(), strict=True))

    def most(self, *values: float) -> list[float]:
        """The largest over the ranks of each number."""
        return [max(column) for column in zip(*self.tell(values), strict=True)]

    def tell(self, thing: Any) -> list[Any]:
        """What every rank has to say, in order of rank."""
        if self.size == 1:
            return [thing]
        said = [None] * self.size
        distributed.all_gather_object(said, thing)
        return said

    def gather(self, rows: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        """The rows of all ranks, where each has its share of `count`."""
        return rows if len(rows) == count else np.concatenate(self.tell(rows))

    def broadcast(self, data: bytes | None) -> bytes | None:
        """What the first rank has, so that one reader decides for all."""
        if self.size == 1:
            return data
        length = torch.tensor([-1 if data is None else len(data)])
        distributed.broadcast(length, 0)
        if int(length) < 0:
            return None
        content = torch.empty(int(length), dtype=torch.uint8)
        if self.is_first and data:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        distributed.broadcast(content, 0)
        return content.numpy().tobytes()

    def together(self, build: Callable[[], Built]) -> Built:
        """What `build` gives; where it fails on one rank all raise, so that none waits for it."""
        if self.size == 1:
            return build()
        try:
            built, problem = build(), None
        except Exception as error:
            built, problem = None, error
        said = self.tell("" if problem is None else f"{type(problem).__name__}: {problem}")
        if problem is not None:
            raise problem
        for rank, text in enumerate(said):
            if text:
                raise RuntimeError(f"rank {rank}: {text}")
        assert built is not None
        return built


ALONE = Ranks()


def here() -> Ranks:
    """The ranks that this process has joined, or itself alone."""
    if not distributed.is_initialized():
        return ALONE
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def invite(address: str, size: int) -> tuple[Store, int]:
    """Where the others find the first rank: a store bound to this address, and its free port."""
    listener = socket.create_server((address, 0))
    port = listener.getsockname()[1]
    store = TCPStore(
        address,
        port,
        size,
        is_master=True,
        timeout=timedelta(seconds=MEET_SECONDS),
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )
    return store, port


def visit(address: str, port: int, size: int) -> Store:
    """The first rank's store, as another rank sees it."""
    seconds = timedelta(seconds=MEET_SECONDS)
    return TCPStore(address, port, size, is_master=False, timeout=seconds)


def join(store: Store, ranks: Ranks, own_address: str, has_gpu: bool) -> None:
    """Meet the other ranks; returns when all are there."""
    if name := _interface(own_address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)  # its own guess may be the loopback
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if has_gpu else "gloo",
        store=store,
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=timedelta(seconds=TALK_SECONDS),
    )


def leave() -> None:
    """Part from the other ranks, if there are any."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _interface(address: str) -> str:
    """The name of the network interface with this address; "" where it cannot be told."""
    try:
        import fcntl
    except ImportError:  # not a Unix
        return ""
    for _, name in socket.if_nameindex():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                packed = fcntl.ioctl(sock, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has no address, or this is not Linux
                continue
        if socket.inet_ntoa(packed[20:24]) == address:
            return name
    return ""
