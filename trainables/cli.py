"""What all our commands share: flags with suggestions, and mistakes told without a traceback."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from trainables.registry import unknown

MISTAKES = (ValueError, LookupError, TypeError, OSError, MemoryError)  # of the user or the machine


class Parser(argparse.ArgumentParser):
    """An argument parser whose `parse` names the nearest known flag, and exits with 2."""

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        self.allow_abbrev = False
        found, rest = self.parse_known_args(arguments)
        if rest:
            flags = [f for action in self._actions for f in action.option_strings]
            self.error(unknown("flag", rest[0].partition("=")[0], flags))
        return found


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a command to its exit code: 2 for a mistake, told in a line; 130 for Ctrl-C."""
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
