"""Which loader reads a data set: decided by what lies there, told in `Listing.layout`."""

import difflib
from collections.abc import Callable
from pathlib import Path

from trainables.data import folders, manifest, rafce, rafdb
from trainables.data.listing import Listing, several

Loader = Callable[[Path], Listing]

KNOWN = """\
  faces[:N[:DIFFICULTY]]                 the embedded procedural faces, such as faces:1500:hard
  RAF-CE        DIR/RAFCE_emolabel.txt, RAFCE_partition.txt, aligned/NNNN_aligned.jpg
                (RAFCE_AUlabel.txt and distribution.txt if there)
  RAF-DB        DIR/EmoLabel/list_patition_label.txt, Image/aligned/train_00001_aligned.jpg
  class folders DIR/<class>/*.jpg or DIR/{train,val,test}/<class>/*.jpg
  manifest      FILE.csv, FILE.tsv, DIR/manifest.csv or DIR/manifest.tsv with the columns
                path,label and, if there, split,aus,id,frames"""


def is_faces(source: str) -> bool:
    """Whether the source is the embedded faces; a folder of that name is written ./faces."""
    return source == "faces" or source.startswith("faces:")


def read(source: str | Path) -> Listing:
    """What a data set on disk says of its images. Raises ValueError for what is no data set."""
    return detect(source)(Path(source).expanduser())


def detect(source: str | Path) -> Loader:
    """The loader of a path. Raises ValueError, listing the known layouts, where there is none."""
    path = Path(source).expanduser()
    if not str(source) or not path.exists():
        close = difflib.get_close_matches(str(source).partition(":")[0], ["faces"])
        hint = " Did you mean 'faces'?" if close else ""
        raise ValueError(f"no data at '{source}': no such file or folder.{hint} Known:\n{KNOWN}")
    loader = _of_folder(path) if path.is_dir() else _of_file(path)
    if loader is None:
        raise ValueError(
            f"no known data layout at '{source}', which {_held(path)}. Known:\n{KNOWN}"
        )
    return loader


def _of_file(path: Path) -> Loader | None:
    return manifest.read if manifest.file_of(path) else None


def _of_folder(path: Path) -> Loader | None:
    if rafce.is_here(path):
        return rafce.read
    if rafdb.is_here(path):
        return rafdb.read
    if manifest.file_of(path):
        return manifest.read
    return folders.read if folders.base_of(path) else None


def _held(path: Path) -> str:
    if not path.is_dir():
        return "is no folder, and no .csv or .tsv file"
    names = sorted(p.name + "/" * p.is_dir() for p in path.iterdir())
    return f"holds {several(names)}" if names else "is empty"
