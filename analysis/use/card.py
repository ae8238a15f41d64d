"""The model card: what an exported model was trained on, what it scores, what it is not for.

After Mitchell et al. 2019 (1810.03993), for what is on record: nothing is said that no file says.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from analysis.final import LEDGER
from analysis.statistics import Estimate
from analysis.use.folder import About

NOT_REAL = """\
**Trained on synthetic faces.** The scores below say nothing about photographs: on real faces expect
chance."""
LIMITS = """\
* It sorts every face into the classes above: it cannot say "none of these", and its probabilities
  are as calibrated as ece above says, on data like its own.
* An expression is not an emotion felt. It is not for decisions about persons (hiring, policing,
  health, education), nor for telling who somebody is.
* People unlike those of the training data, other cameras, light, poses and ages were not measured.
* Classes and AUs with few validation images have wide intervals or none; see the counts.
* Crops must be framed as in training: a face that fills the picture, eyes level. `analysis.predict`
  turns and scales the faces it finds so that the eyes lie at {eyes} of the side."""


@dataclass(frozen=True)
class Score:
    """One line of the table of scores."""

    name: str
    estimate: Estimate
    note: str = ""


def text(
    about: About, meta: Mapping[str, Any], scores: Sequence[Score], notes: Sequence[str]
) -> str:
    """The card of an exported model; `meta` is what run.json says of the run it comes from."""
    data = meta["data"]
    parts = [
        f"# {plain(about['name'])}",
        f"{plain(about['title'])}. Exported on {about['created'][:10]} by fer-search.",
        NOT_REAL if data.get("is_synthetic") else "",
        "## Data",
        "\n".join(_data(about, data)),
        "## Scores on validation images",
        _table(scores),
        "\n".join(f"* {plain(note)}" for note in notes),
        "## Scores on test images",
        about["test"] or "The sealed test split has not been opened for this run.",
        "## Intended use and limits",
        "Research on facial expressions, and annotation of pictures that a person then looks at.",
        LIMITS.format(eyes=_eyes(about)),
        "## Licences",
        "\n".join(_licences(about, data)),
        "## How it was made",
        "\n".join(_made(about, meta)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(value: object) -> str:
    """A text of the user's without what Markdown or HTML would make of it, on one line."""
    words = " ".join(str(value).split())
    for mark in "\\`*_[]<>|#":
        words = words.replace(mark, f"\\{mark}")
    return words


def _eyes(about: About) -> str:
    (x, y), apart = about["alignment"]["eye_mid"], about["alignment"]["iod"]
    return f"({x - apart / 2:.2f}, {y:.2f}) and ({x + apart / 2:.2f}, {y:.2f})"


def _data(about: About, data: Mapping[str, Any]) -> Iterator[str]:
    kind = "synthetic, procedural faces" if data.get("is_synthetic") else "images as given"
    sizes = data.get("sizes") or {}
    counts = ", ".join(f"{n} {split}" for split, n in sizes.items()) or "sizes not recorded"
    yield f"* {plain(data.get('name', 'not recorded'))} ({kind}), fingerprint "
    yield f"  `{str(data.get('fingerprint', 'not recorded'))[:32]}`"
    yield f"* Images: {counts}; {about['input']['size']} px"
    train, val = (data.get(f"{split}_counts") for split in ("train", "val"))
    rows = [
        f"{plain(name)} ({train[k]}, {val[k]})" if train and val else plain(name)
        for k, name in enumerate(about["class_names"])
    ]
    yield f"* Classes (training, validation images): {', '.join(rows)}"
    units = ", ".join(map(plain, about["au_names"])) or "none"
    yield f"* Action units: {units}"


def _table(scores: Sequence[Score]) -> str:
    rows = ["| | value | 95 % interval | |", "|--|--|--|--|"]
    for score in scores:
        e = score.estimate
        between = f"{e.low:.3f} to {e.high:.3f}" if e.low == e.low else "–"
        rows.append(f"| {plain(score.name)} | {e.value:.3f} | {between} | {plain(score.note)} |")
    return "\n".join(rows) if scores else "None is on record."


def _licences(about: About, data: Mapping[str, Any]) -> Iterator[str]:
    yield "* Program: Apache-2.0. Trained weights: as training data and initial weights permit."
    if data.get("is_synthetic"):
        yield "* Training data: made by the program (see its NOTICE for the head mesh)."
    else:
        yield (
            f"* Training data: {plain(data.get('name', ''))}; its licence is not on record here. "
            "Databases of faces are mostly for research only: ask its publisher."
        )
    for line in sorted({weights_licence(member["config"]) for member in about["members"]}):
        yield f"* {line}"


def weights_licence(config: Mapping[str, Any]) -> str:
    """What is known of the licence of the weights that a trial began with."""
    source, name = str(config.get("weights", "none")), str(config.get("backbone"))
    if source == "none":
        return f"{plain(name)}: trained from scratch, no initial weights"
    if source == "package":
        return f"{plain(name)}: {_of_package(name)}"
    if source == "hub":
        return f"{plain(name)}: {_of_hub(name)}"
    return (
        f"{plain(name)}: weights of the file {plain(Path(source).name)}, licence not on record: "
        "ask who published it"
    )


def _of_package(name: str) -> str:
    from trainables.weights import PACKAGES

    package = PACKAGES[name].package if name in PACKAGES else "?"
    try:
        found: Any = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        return f"weights of the package {package}, licence unknown: it is not installed here"
    kinds = [v for v in found.get_all("Classifier") or () if v.startswith("License")]
    said = found.get("License-Expression") or (kinds[0].split(" :: ")[-1] if kinds else "")
    said = said or found.get("License") or "not stated in it"
    return f"weights of the package {package} {found['Version']}, licence: {plain(said)[:80]}"


def _of_hub(name: str) -> str:
    import timm

    try:
        entry = timm.get_pretrained_cfg(name)
    except Exception:  # timm raises RuntimeError for what it does not know
        entry = None
    place = getattr(entry, "hf_hub_id", None) or getattr(entry, "url", None) or "not recorded"
    licence = getattr(entry, "license", None) or "not stated"
    return f"weights of timm's hub ({plain(place)}), licence: {plain(licence)}"


def _made(about: About, meta: Mapping[str, Any]) -> Iterator[str]:
    command = meta.get("command")
    yield f"* Command: `{shlex.join(command)}`" if command else "* Command: not recorded"
    yield f"* Seed {meta.get('seed', '?')}, commit {plain(meta.get('commit') or 'not recorded')}"
    versions = ", ".join(f"{k} {v}" for k, v in (meta.get("versions") or {}).items())
    yield f"* Versions: {versions or 'not recorded'}"
    for member in about["members"]:
        trials = ", ".join(member["trials"])
        yield (
            f"* `{member['files'][0]}`: trial {trials} of {plain(member['run'])}, weight "
            f"{member['weight']:.3f}, temperature {member['temperature']:.3f}; settings: model.json"
        )
    parity = about["parity"]
    yield (
        f"* ONNX against PyTorch on {parity['images']} images: at most {parity['onnx']:.1e} apart"
        + (f"; against the stored predictions {parity['stored']:.1e}" if parity["stored"] else "")
    )


def looked(root: Path, who: str) -> str:
    """What the ledger of the test split says of the best trial or the ensemble; "" if sealed."""
    path = root / LEDGER
    if not path.exists() or not who:
        return ""
    lines = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]
    found = [line for line in lines if who in (line.get("scores") or {})]
    if not found:
        return ""
    said = ", ".join(f"{plain(k)} {v:.3f}" for k, v in found[-1]["scores"][who].items() if v == v)
    return f"The {who} of the run, at look {len(lines)} ({found[-1]['time'][:10]}): {said}."
