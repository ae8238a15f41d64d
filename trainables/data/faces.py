"""Embedded data: procedural faces with exact AU labels, in the classes and counts of RAF-CE.

    python -m trainables.data.faces --out DIR --count 4549 --layout rafce

A picture is a function of (seed, index): its nuisances and its AUs come from two generators of its
own, so a class or a split can change neither pose nor light. N pictures, A AUs, S pixels a side.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainables.cli import Parser, run_command
from trainables.data import render, tables
from trainables.data.mesh import DIFFICULTIES, Difficulty, draw_nuisance, load_head
from trainables.data.parallel import CHUNK, in_chunks
from trainables.data.tables import AUS, CLASS_NAMES, SPLITS, Action, split_counts

U8 = NDArray[np.uint8]
Progress = Callable[[int, int], None]
LEAST, MOST = 200, 100_000


@dataclass(frozen=True)
class FacesSpec:
    """Which faces to make; two equal specs make equal pixels."""

    count: int = 2000
    size: int = 64
    seed: int = 0
    difficulty: str = "medium"

    def __post_init__(self) -> None:
        if not LEAST <= self.count <= MOST:
            raise ValueError(f"asked for {self.count} faces; ask for {LEAST} to {MOST}")
        if not 16 <= self.size <= 1024:
            raise ValueError(f"asked for pictures of {self.size} px; ask for 16 to 1024")
        if self.seed < 0:
            raise ValueError(f"asked for seed {self.seed}; give one that is 0 or more")
        if self.difficulty not in DIFFICULTIES:
            known = ", ".join(DIFFICULTIES)
            raise ValueError(f"unknown difficulty {self.difficulty!r}; known: {known}")

    @property
    def level(self) -> Difficulty:
        """The parameters behind the name of the difficulty."""
        return DIFFICULTIES[self.difficulty]

    @classmethod
    def parse(cls, text: str, size: int = 64, seed: int = 0) -> "FacesSpec":
        """Read `faces[:N[:DIFFICULTY]]`, such as faces:1500:hard."""
        name, *rest = text.split(":")
        if name != "faces" or len(rest) > 2:
            form = "faces[:N[:DIFFICULTY]], such as faces:1500:hard"
            raise ValueError(f"cannot read {text!r}; write {form}")
        if rest and not (rest[0].isascii() and rest[0].isdigit()):
            raise ValueError(f"{rest[0]!r} in {text!r} is no number; give {LEAST} to {MOST}")
        count = int(rest[0]) if rest else cls.count
        return cls(count, size, seed, rest[1] if len(rest) == 2 else cls.difficulty)


@dataclass(frozen=True)
class Person:
    """One picture before it is drawn: who, what they show, and what is written about it."""

    index: int
    id: str
    split: str
    label: int
    aus: Mapping[int, Action]  # as shown
    text: str  # as written: "1+4+L12+25", or "null"


def draw_people(spec: FacesSpec) -> list[Person]:
    """Every picture of the spec, in an order that tells neither class nor split."""
    counts, level = split_counts(spec.count), spec.level
    cells = [(s, c) for s in SPLITS for c in range(len(CLASS_NAMES)) for _ in range(counts[s][c])]
    order = np.random.default_rng([spec.seed, MOST]).permutation(spec.count)
    chance = [np.random.default_rng([spec.seed, index, 1]) for index in range(spec.count)]
    labels = np.array([cells[k][1] for k in order])
    uniforms = np.stack([rng.random(len(AUS)) for rng in chance])
    shown = tables.draw_aus(level.law, labels, uniforms)
    width = max(4, len(str(spec.count)))
    people = []
    for index, (k, row, rng) in enumerate(zip(order, shown, chance, strict=True)):
        aus = tables.show_aus(
            (AUS[a] for a in np.flatnonzero(row)), level.intensity, level.side_rate, rng
        )
        text = tables.write_aus(aus, level.label_noise, level.null_rate, rng)
        split, label = cells[k]
        name = f"{index + 1:0{width}d}.jpg"
        people.append(Person(index, name, split, label, aus, text))
    return people


def render_face(person: Person, spec: FacesSpec) -> U8:
    """(S, S, 3) RGB picture of the person."""
    rng = np.random.default_rng([spec.seed, person.index])
    return render.render(load_head(), person.aus, spec.level, spec.size, rng)


def _render_chunk(people: Sequence[Person], spec: FacesSpec) -> U8:
    return np.stack([render_face(person, spec) for person in people])


def _pictures(
    people: Sequence[Person], spec: FacesSpec, progress: Progress | None, workers: int | None
) -> Iterator[U8]:
    """(n, S, S, 3) pictures in order, some at a time, drawn on all cores."""
    told = None if progress is None else lambda _, done, total: progress(done, total)
    draw = partial(_render_chunk, spec=spec)
    return in_chunks(draw, people, "render", told, few=CHUNK, workers=workers)


def render_all(spec: FacesSpec, progress: Progress | None = None, workers: int | None = None) -> U8:
    """(N, 3, S, S) RGB pictures in the order of `draw_people`, the same for any `workers`."""
    images = np.empty((spec.count, 3, spec.size, spec.size), np.uint8)
    done = 0
    for chunk in _pictures(draw_people(spec), spec, progress, workers):
        images[done : done + len(chunk)] = chunk.transpose(0, 3, 1, 2)
        done += len(chunk)
    return images


def region_masks(spec: FacesSpec, indices: Sequence[int], au_names: Sequence[str | int]) -> U8:
    """(n, A, S, S) 1 where the AU would move what is seen in the picture, shown or not."""
    head, people = load_head(), draw_people(spec)
    masks = np.zeros((len(indices), len(au_names), spec.size, spec.size), np.uint8)
    for row, index in enumerate(indices):
        who = draw_nuisance(head, spec.level, np.random.default_rng([spec.seed, index]))
        masks[row] = render.region_masks(head, people[index].aus, who, spec.size, au_names)
    return masks


def bayes_ceiling(
    difficulty: str | Difficulty,
    prior: ArrayLike,
    draws: int | None = None,
    seed: int = 0,
    classes: Iterable[int] | None = None,
) -> dict[str, float]:
    """accuracy, uar and macro_f1 of the Bayes classifier that sees the true AUs.

    Exact, or with `draws` by Monte Carlo; what it assumes is told at `tables.law_ceiling`.
    """
    level = DIFFICULTIES[difficulty] if isinstance(difficulty, str) else difficulty
    return tables.law_ceiling(level.law, prior, draws, seed, classes)


def _write_pictures(
    spec: FacesSpec, out: Path, path_of: Callable[[Person], str], progress: Progress | None
) -> list[Person]:
    """Write every picture to out/path_of(person) and a note on what they are; the people."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is not an empty folder; name a new one, or empty it")
    people = draw_people(spec)
    for folder in {(out / path_of(person)).parent for person in people}:
        folder.mkdir(parents=True, exist_ok=True)
    done = 0
    for chunk in _pictures(people, spec, progress, None):
        for image in chunk:
            _, code = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            (out / path_of(people[done])).write_bytes(code.tobytes())
            done += 1
    (out / "SYNTHETIC.md").write_text(
        "# Synthetic\n\nNo real person is shown here. These faces were generated from the CC0 "
        "MakeHuman head mesh by\n`python -m trainables.data.faces`: "
        f"{spec}.\nScores on them say nothing of scores on photographs.\n"
    )
    return people


def write_rafce(spec: FacesSpec, out: Path, progress: Progress | None = None) -> None:
    """Write the pictures as the files of RAF-CE, byte for byte in its format."""
    path_of = partial(_id_path, "aligned/{}_aligned.jpg")
    people = _write_pictures(spec, out, path_of, progress)
    code = {"train": 0, "test": 1, "val": 2}  # not a slip: RAF-CE numbers them so
    emotions, parts = "{0.id} {0.label}", [f"{p.id} {code[p.split]}" for p in people]
    aus = "".join(f"{p.id} {p.text}\n" for p in people)
    (out / "RAFCE_emolabel.txt").write_text("\n".join(map(emotions.format, people)))
    (out / "RAFCE_partition.txt").write_text("\n".join(parts))
    (out / "RAFCE_AUlabel.txt").write_text(aus)


def _id_path(form: str, person: Person) -> str:
    return form.format(Path(person.id).stem)


def _class_path(person: Person) -> str:
    return f"{person.split}/{CLASS_NAMES[person.label].replace(' ', '_')}/{person.id}"


def write_folders(spec: FacesSpec, out: Path, progress: Progress | None = None) -> None:
    """Write the pictures as SPLIT/CLASS/ID.jpg; this layout has no place for AUs."""
    _write_pictures(spec, out, _class_path, progress)


def write_manifest(spec: FacesSpec, out: Path, progress: Progress | None = None) -> None:
    """Write the pictures and manifest.csv, which gives path, label, split and aus of each."""
    path_of = partial(_id_path, "images/{}.jpg")
    people = _write_pictures(spec, out, path_of, progress)
    rows = [(path_of(p), CLASS_NAMES[p.label], p.split, p.text) for p in people]
    with (out / "manifest.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "label", "split", "aus"), *rows])


LAYOUTS = {"rafce": write_rafce, "folders": write_folders, "manifest": write_manifest}


def montage(spec: FacesSpec, identities: int = 6) -> U8:
    """(rows x S, 14 S, 3) contact sheet: one identity a row, one class a column."""
    rows = []
    for index in range(identities):
        row = []
        for label in range(len(CLASS_NAMES)):
            core, secondary = tables.prototype(label)
            shown = core | {au for au, share in secondary.items() if share > 0.5}
            aus = {au: Action(1.0) for au in shown if au in AUS}
            row.append(render_face(Person(index, "", "", label, aus, ""), spec))
        rows.append(np.concatenate(row, 1))
    return np.concatenate(rows)


def _export(spec: FacesSpec, layout: str, out: Path) -> None:
    """Write the data set with a progress bar, then say what it holds."""
    from rich.console import Console

    from trainables.bars import bars  # only here: all that reads data imports this module

    with bars(Console(stderr=True)) as show:
        LAYOUTS[layout](spec, out, partial(show, "faces"))
    counts = split_counts(spec.count)
    print(f"{spec.count} faces in {out}", *(f"{s} {counts[s].sum()}" for s in SPLITS), sep=", ")
    for label, name in enumerate(CLASS_NAMES):
        print(f"  {label:2d} {name:22}", *(f"{counts[s][label]:6d}" for s in SPLITS))
    ceiling = bayes_ceiling(spec.difficulty, counts["test"])
    print(f"Bayes ceiling, {spec.difficulty}:", *(f"{k} {v:.3f}" for k, v in ceiling.items()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a data set, a contact sheet or both. Raises ValueError or OSError if it cannot."""
    parser = Parser(
        prog="python -m trainables.data.faces",
        description="Write rendered faces, labelled with their AUs and classes, as a data set.",
    )
    parser.add_argument("--out", type=Path, help="a new or empty folder")
    parser.add_argument("--count", type=int, default=4549, help=f"faces, {LEAST} to {MOST}")
    parser.add_argument("--layout", choices=LAYOUTS, default="rafce", help="how to lay out --out")
    parser.add_argument("--size", type=int, default=112, help="pixels a side")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other faces")
    parser.add_argument("--difficulty", choices=DIFFICULTIES, default="medium")
    parser.add_argument("--montage", type=Path, help="write a contact sheet to this .png")
    given = parser.parse(arguments)
    if given.out is None and given.montage is None:
        raise ValueError("nothing to do: give --out DIR, --montage FILE.png, or both")
    spec = FacesSpec(given.count, given.size, given.seed, given.difficulty)
    if given.montage is not None:
        _, code = cv2.imencode(".png", montage(spec)[..., ::-1])
        given.montage.write_bytes(code.tobytes())
    if given.out is not None:
        _export(spec, given.layout, given.out)
    return 0


if __name__ == "__main__":
    run_command(main)
