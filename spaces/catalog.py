"""Finding a space: one of ours by name, or a user's own Python file that defines SPACE."""

import difflib
import importlib
import runpy
from pathlib import Path

from spaces.space import Space

NAMES = ("smoke", "sprint1", "sprint2", "sprint3", "sprint4", "full", "heads")


def find(name: str) -> Space:
    """The named space, or the SPACE of the Python file at that path (which is executed).

    Raises LookupError when there is neither, ValueError when the file is not a space.
    """
    if name in NAMES:
        space: Space = importlib.import_module(f"spaces.{name}").SPACE
        return space
    path = Path(name)
    if path.suffix == ".py" or "/" in name:
        return _from_file(path)
    close = difflib.get_close_matches(name, NAMES, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise LookupError(
        f"unknown space '{name}'; known: {', '.join(NAMES)}, or the path of a .py file.{hint}"
    )


def _from_file(path: Path) -> Space:
    if not path.is_file():
        raise LookupError(f"no space file at '{path}'; known spaces: {', '.join(NAMES)}")
    try:
        space = runpy.run_path(str(path)).get("SPACE")
    except (Exception, SystemExit) as error:  # all that the file does wrong is its mistake
        raise ValueError(
            f"the space file '{path}' fails: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(space, Space):
        raise ValueError(f"'{path}' defines no SPACE; write SPACE = Space('name', {{...}})")
    return space
