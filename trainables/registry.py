"""The only plug-in mechanism: name -> builder, by the builder's own name."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

Builder = TypeVar("Builder", bound=Callable[..., object])


class Registry(Mapping[str, Builder]):
    """A mapping that builders add themselves to with `@REGISTRY.register`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._builders: dict[str, Builder] = {}

    def register(self, builder: Builder) -> Builder:
        name = builder.__name__.removesuffix(
            "_"
        )  # `none_` registers "none" without hiding a builtin
        if name in self._builders:
            raise ValueError(f"{self.kind} '{name}' is registered twice")
        self._builders[name] = builder
        return builder

    def __getitem__(self, name: str) -> Builder:
        if name not in self._builders:
            raise LookupError(unknown(self.kind, name, self._builders))
        return self._builders[name]

    def __contains__(self, name: object) -> bool:
        return name in self._builders

    def __iter__(self) -> Iterator[str]:
        return iter(self._builders)

    def __len__(self) -> int:
        return len(self._builders)

    def arguments(self, name: str) -> dict[str, object]:
        """The hyper-parameters of a builder (its keyword-only parameters) with their defaults."""
        parameters = inspect.signature(self[name]).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def check(self, name: str, arguments: Iterable[str]) -> None:
        """Raise LookupError unless the builder exists and takes all these hyper-parameters.

        Of a mapping the values too: TypeError for a text where its default is a number.
        """
        known = self.arguments(name)
        values = arguments if isinstance(arguments, Mapping) else {}
        for argument in arguments:
            if argument not in known:
                raise LookupError(unknown(f"argument of {self.kind} '{name}'", argument, known))
            value = values.get(argument)
            if isinstance(value, str) and isinstance(known[argument], int | float):
                raise TypeError(
                    f"argument '{argument}' of {self.kind} '{name}' wants a number, not '{value}'"
                )


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """What to say of a name that does not exist."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f". Did you mean '{close[0]}'?" if close else ""
    return f"unknown {kind} '{name}'; known: {', '.join(names) or 'none'}{hint}"
