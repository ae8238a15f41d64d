"""Embedded data: procedural faces with exact AU labels, in the classes and counts of RAF-CE.

    python -m trainables.data.faces --out DIR --count 4549 --layout rafce

A picture is a function of (seed, index): its nuisances and its AUs come from two generators of its
own, so a class or a split can change neither pose nor light. N pictures, A AUs, S pixels a side.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainables.data import render, tables
from trainables.data.mesh import DIFFICULTIES, Action, Difficulty, draw_nuisance, load_head
from trainables.data.tables import AUS, CLASS_COUNTS, CLASS_NAMES, SPLITS

U8 = NDArray[np.uint8]
Progress = Callable[[int, int], None]
SIDED = frozenset({1, 2, 4, 6, 10, 12, 15})  # AUs that people do show on one side
LEAST, MOST = 200, 100_000
CHUNK = 64


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


def split_counts(count: int) -> dict[str, NDArray[np.int64]]:
    """(14,) pictures of each class by split: RAF-CE to scale, none without a picture."""
    table = np.array([CLASS_COUNTS[split] for split in SPLITS])
    least = np.array([[2], [1], [1]])
    quota = table * (count / table.sum())
    dealt = np.maximum(np.floor(quota).astype(np.int64), least)
    while dealt.sum() != count:  # largest remainder; the floor of rare classes is paid by the rest
        missing = count - dealt.sum()
        owed = quota - dealt if missing > 0 else np.where(dealt > least, dealt - quota, -np.inf)
        dealt.flat[owed.argmax()] += np.sign(missing)
    return dict(zip(SPLITS, dealt, strict=True))


def _written(aus: Mapping[int, Action], level: Difficulty, rng: np.random.Generator) -> str:
    """AUs as an annotator writes them: some are missed, some are seen that are not there."""
    chance = rng.random((2, len(AUS)))
    is_null = rng.random() < level.null_rate
    extra = iter(rng.permutation(AUS))
    tokens = []
    for k, (au, action) in enumerate(sorted(aus.items())):
        side = "" if action.left and action.right else "L" if action.left else "R"
        if chance[0, k] >= level.label_noise:
            tokens.append((au, f"{side}{au}"))
        if chance[1, k] < level.label_noise:
            wrong = next(int(au) for au in extra if au not in aus)
            tokens.append((wrong, str(wrong)))
    return "null" if is_null or not tokens else "+".join(t for _, t in sorted(tokens))


def _show(shown: Iterable[int], level: Difficulty, rng: np.random.Generator) -> dict[int, Action]:
    """Intensity and sides of the AUs shown; draws for all AUs, so that one cannot shift another."""
    strength = rng.uniform(*level.intensity, len(AUS))
    one_sided, is_left = rng.random(len(AUS)) < level.side_rate, rng.random(len(AUS)) < 0.5
    aus = {}
    for au in shown:
        k = AUS.index(au)
        sided = bool(one_sided[k]) and au in SIDED
        aus[au] = Action(
            float(strength[k]), not sided or bool(is_left[k]), not sided or not is_left[k]
        )
    return aus


def draw_people(spec: FacesSpec) -> list[Person]:
    """Every picture of the spec, in an order that tells neither class nor split."""
    counts = split_counts(spec.count)
    cells = [(s, c) for s in SPLITS for c in range(len(CLASS_NAMES)) for _ in range(counts[s][c])]
    order = np.random.default_rng([spec.seed, MOST]).permutation(spec.count)
    chance = [np.random.default_rng([spec.seed, index, 1]) for index in range(spec.count)]
    labels = np.array([cells[k][1] for k in order])
    uniforms = np.stack([rng.random(len(AUS)) for rng in chance])
    shown = tables.draw_aus(spec.level.law, labels, uniforms)
    width = max(4, len(str(spec.count)))
    people = []
    for index, (k, row, rng) in enumerate(zip(order, shown, chance, strict=True)):
        aus = _show((AUS[a] for a in np.flatnonzero(row)), spec.level, rng)
        text = _written(aus, spec.level, rng)
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


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _pictures(people: Sequence[Person], spec: FacesSpec, workers: int | None) -> Iterator[U8]:
    """(n, S, S, 3) pictures in order, a chunk at a time, drawn on all cores."""
    chunks = [people[k : k + CHUNK] for k in range(0, len(people), CHUNK)]
    draw = partial(_render_chunk, spec=spec)
    workers = workers or len(os.sched_getaffinity(0))
    if workers == 1 or len(chunks) == 1:
        yield from map(draw, chunks)
        return
    context = multiprocessing.get_context("spawn")  # fork would copy the locks of torch's threads
    with ProcessPoolExecutor(workers, context, _one_thread) as pool:
        yield from pool.map(draw, chunks)


def render_all(
    spec: FacesSpec, progress: Progress | None = None, workers: int | None = None
) -> U8:
    """(N, 3, S, S) RGB pictures in the order of `draw_people`, the same for any `workers`."""
    images = np.empty((spec.count, 3, spec.size, spec.size), np.uint8)
    done = 0
    for chunk in _pictures(draw_people(spec), spec, workers):
        images[done : done + len(chunk)] = chunk.transpose(0, 3, 1, 2)
        done += len(chunk)
        if progress is not None:
            progress(done, spec.count)
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
