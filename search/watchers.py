"""Several observers as one: the table, the gauges, the journal, the trackers."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

from search.protocols import Observer

log = logging.getLogger(__name__)


class Watchers:
    """An observer made of observers. One that raises is told of once and left out from then on."""

    def __init__(
        self, observers: Sequence[Observer], warn: Callable[[str], None] = log.warning
    ) -> None:
        self.observers, self.warn = list(observers), warn

    def start(self) -> None:
        self._tell("start")

    def update(self) -> None:
        self._tell("update")

    def stop(self) -> None:
        self._tell("stop")

    def _tell(self, what: Literal["start", "update", "stop"]) -> None:
        for observer in list(self.observers):
            try:
                getattr(observer, what)()
            except Exception as error:  # whoever only watches must not end a search
                self._leave_out(observer, error)
                if what != "stop":
                    with suppress(Exception):
                        observer.stop()  # what it has open, a terminal above all

    def _leave_out(self, observer: Observer, error: Exception) -> None:
        self.observers.remove(observer)
        name, reason = type(observer).__name__, f"{type(error).__name__}: {error}"
        log.debug("%s raised", name, exc_info=True)
        self.warn(f"{name} stopped ({reason}); the search goes on without it")
