"""What all our commands share: flags with suggestions, and mistakes told without a traceback."""

import argparse
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from trainables.registry import unknown

if TYPE_CHECKING:
    from rich.console import Console

MISTAKES = (ValueError, LookupError, TypeError, OSError, MemoryError)  # of the user or the machine
GRACE_SECONDS = 27  # Slurm kills after 30


class Parser(argparse.ArgumentParser):
    """An argument parser whose `parse` names the nearest known flag, and exits with 2."""

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        self.allow_abbrev = False
        found, rest = self.parse_known_args(arguments)
        if rest:
            word = rest[0].partition("=")[0]
            if not word.startswith("-"):
                self.error(
                    f"'{word}' stands alone: every value follows its flag, as in --flag VALUE"
                )
            flags = [f for action in self._actions for f in action.option_strings]
            self.error(unknown("flag", word, [f for f in flags if f.startswith("--")]))
        return found

    def error(self, message: str) -> NoReturn:
        """One message instead of a page of usage."""
        self.exit(2, f"error: {message}\n({self.prog} --help explains the flags)\n")


def whole(low: int, high: int) -> Callable[[str], int]:
    """The type of a flag that takes a whole number within bounds, both included."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"'{text}' is no whole number; give {low} to {high}"
            ) from None
        if not low <= value <= high:
            way = "small" if value < low else "large"
            raise argparse.ArgumentTypeError(f"{text} is too {way}; give {low} to {high}")
        return value

    return read


def number(low: float, is_open: bool = False) -> Callable[[str], float]:
    """The type of a flag that takes a number from `low` (itself not, where `is_open`) upwards."""
    wanted = f"give a number above {low:g}" if is_open else f"give {low:g} or more"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is no number; {wanted}") from None
        if not math.isfinite(value) or value < low or (is_open and value == low):
            raise argparse.ArgumentTypeError(f"{text} cannot be; {wanted}")
        return value

    return read


def say(console: "Console", label: str, text: str, style: str = "bold") -> None:
    """A line with a label before it; a name of the user's with brackets in it is no markup."""
    from rich.table import Table
    from rich.text import Text

    line = Table.grid()
    line.add_column(width=9, style=style)
    line.add_column(overflow="fold")
    line.add_row(Text(label), Text(text))
    console.print(line)


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a command to its exit code: 2 for a mistake, told in a line; 130 when interrupted."""
    end_on_sigterm()
    try:
        code = main() or 0
    except MISTAKES as error:
        if isinstance(error, KeyError):  # its text is a bare quoted key: a bug, not a message
            raise
        print(f"error: {error or type(error).__name__}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def end_on_sigterm(last_words: str = "") -> None:
    """From now on SIGTERM does what Ctrl-C does, but within a time that schedulers of jobs grant.

    They send it to all processes at once, and those of Ray, gone, are waited for in vain.
    """

    def end(number: int, frame: FrameType | None) -> None:
        clock = threading.Timer(GRACE_SECONDS, give_up, [last_words])
        clock.daemon = True
        clock.start()
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):  # ignored, as in the background of a script
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)

    if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
        signal.signal(signal.SIGTERM, end)


def give_up(last_words: str) -> NoReturn:
    """End the process at once."""
    print(last_words or "interrupted", file=sys.stderr, flush=True)
    os._exit(130)
