"""A pickled network as named tensors, its code not run.

Some publishers (HSEmotion) give `torch.save(network)`, which could only be opened by importing, and
so trusting, every class that it names. Here tensors are made from the bytes in the file, and all
other objects are shells that keep what they are given and do nothing.
"""

import collections
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Shell:
    """Stands for an object of any class but a tensor: it takes all that unpickling does to one."""

    state: object = None

    def __init__(self, *_: object, **__: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> "Shell":
        return Shell()

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, _: object, __: object) -> None: ...

    def append(self, _: object) -> None: ...

    def extend(self, _: object) -> None: ...


class Maker:
    """A function that a pickle may call; what it would set on it is dropped."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Tensor]) -> None:
        self._make = make

    def __call__(self, *values: object) -> Tensor:
        return self._make(*values)

    def __setstate__(self, _: object) -> None: ...


class Unpickler(pickle.Unpickler):
    """Reads the pickle inside torch's zip format; it finds no class but those of tensors."""

    def __init__(self, archive: zipfile.ZipFile, pickled: str) -> None:
        super().__init__(archive.open(pickled))
        self.archive, self.folder = archive, pickled.removesuffix(".pkl")

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "torch" and name in STORAGES:
            return STORAGES[name]
        harmless = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): Maker(_tensor),
            ("torch._utils", "_rebuild_parameter"): Maker(_parameter),
        }
        return harmless.get((module, name), Shell)

    def persistent_load(self, reference: Any) -> Tensor:
        """All values of a storage, which ("storage", dtype, key, device, count) names."""
        _, dtype, key, _, _ = reference
        values = bytearray(self.archive.read(f"{self.folder}/{key}"))
        return torch.frombuffer(values, dtype=dtype) if values else torch.empty(0, dtype=dtype)


def network_state(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of a file made by torch.save(network), by their names.

    Raises ValueError for a file that holds something else.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no file of torch 1.6 or later")
    with zipfile.ZipFile(path) as archive:
        pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if not pickled:
            raise ValueError("it holds no pickle")
        content = Unpickler(archive, pickled[0]).load()
    state = dict(_tensors(content, ""))
    if not state:
        raise ValueError("it holds neither named tensors nor a network")
    return state


def _tensors(module: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a network and, by recursion, of its modules."""
    state = module.state if isinstance(module, Shell) else None
    if not isinstance(state, Mapping):
        return
    for kind in ("_parameters", "_buffers"):
        for name, value in state.get(kind, {}).items():
            if isinstance(value, Tensor):
                yield prefix + name, value
    for name, child in state.get("_modules", {}).items():
        yield from _tensors(child, f"{prefix}{name}.")


def _tensor(
    values: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    return torch.as_strided(values, size, stride, offset)


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data
