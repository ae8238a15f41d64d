"""`python -m analysis.export RUN --out DIR`: the best trial or the ensemble as one folder to use.

`use/folder.py` lists its files. model.json holds names of classes and AUs, what goes in and comes
out, where the eyes of a face belong, and for each member its file, settings, weight, temperature.
The network is compared with PyTorch and with the predictions on record before the folder appears.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.prepared import bundle_of
from analysis.use import card
from analysis.use import folder as files
from analysis.use.choice import Choice, as_trained, best, corrected, ensemble, trial_of
from analysis.use.faces import FRAME
from trainables.cli import Parser, run_command
from trainables.store import RunStore, write_json

if TYPE_CHECKING:
    from analysis.use.members import Facts, Recipe
    from analysis.use.network import Network

TOLERANCE = 1e-4  # between ONNX and PyTorch
LIKE = 0.05  # mean over images, between the network and what is on record (16 bits, GPUs)
IMAGES = 64  # that are compared
OUTPUTS = {
    files.OUTPUTS[0]: "(batch, classes), rows sum to 1",
    files.OUTPUTS[1]: "(batch, action units), each between 0 and 1 by itself",
}
HOW = """\
softmax; the mean of a member's folds and views, at its temperature; then the weighted mean or, \
with coefficients, a regression on the log-probabilities; then the shift is taken from the \
log-probabilities. AUs, of the plain view: weighted mean of the members that know them"""


def export(choice: Choice, out: Path) -> files.About:
    """Write the folder of what was chosen; what its model.json says.

    Raises FileExistsError where `out` is something already, ValueError for what cannot be exported.
    """
    from safetensors.torch import save

    from analysis.use.members import config_of, facts_of, joined, trained
    from analysis.use.network import write_onnx
    from analysis.use.runtime import needs

    needs("export", "onnx", "onnxscript", "onnxruntime")
    recipe, meta = choice.recipe, choice.meta
    configs = [config_of(source).flat() for source in recipe.sources]  # before anything is loaded
    with files.new_folder(out) as folder:
        facts = facts_of(meta)
        models = [trained(source, facts) for source in recipe.sources]
        network = joined(models, recipe)
        about = about_of(choice, facts, configs)
        for member, folds in zip(about["members"], models, strict=True):
            for name, model in zip(member["files"], folds, strict=True):
                tensors = {k: v.contiguous().clone() for k, v in model.state_dict().items()}
                (folder / name).write_bytes(save(tensors))
        write_onnx(network, about["input"]["size"], about, folder / files.ONNX)
        about["parity"] = compare(network, folder, choice, about["input"]["size"])
        write_json(folder / files.MODEL, about)
        text = card.text(about, meta, choice.scores, choice.notes)
        (folder / files.CARD).write_text(text, encoding="utf-8")
    return about


def about_of(choice: Choice, facts: "Facts", configs: Sequence[Mapping[str, Any]]) -> files.About:
    """model.json, but for what is measured."""
    recipe, data = choice.recipe, choice.meta["data"]
    knows_aus = any(bool(c["au_weight"]) and c["au_loss"] != "none" for c in configs)
    return {
        "format": files.FORMAT,
        "version": files.VERSION,
        "name": f"{choice.meta.get('name', 'run')}-{recipe.kind}",
        "title": recipe.title,
        "kind": recipe.kind,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "class_names": list(facts.class_names),
        "basic_names": list(facts.basic_names),
        "components": facts.components and [list(pair) for pair in facts.components],
        "au_names": list(facts.au_names) if knows_aus else [],
        "au_vocabulary": list(facts.au_names),  # of the data: attention may be built for them
        "au_threshold": 0.5,
        "input": _input(_size(configs)),
        "outputs": dict(list(OUTPUTS.items())[: 1 + knows_aus]),
        "alignment": {**FRAME},
        "combination": {
            "how": HOW,
            "coefficients": [list(row) for row in recipe.coefficients] or None,
            "shift": list(recipe.shift) or None,
            "views": recipe.views,
        },
        "members": list(_members(recipe, configs)),
        "data": {k: data.get(k) for k in ("name", "fingerprint", "is_synthetic", "sizes")},
        "scores": {
            score.name: {k: None if x != x else x for k, x in asdict(score.estimate).items()}
            for score in choice.scores
        },
        "test": choice.test,
    }


def _input(size: int) -> dict[str, Any]:
    return {
        "name": files.INPUT,
        "shape": ["batch", 3, size, size],
        "size": size,
        "type": "uint8",
        "colour": "RGB",
        "normalisation": "inside the network",
        "resize": "the longer side to the size (area means to shrink, bicubic to enlarge), edges "
        "repeated to a square: trainables.data.images.square",
    }


def _members(recipe: "Recipe", configs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    total = sum(source.weight for source in recipe.sources)
    for number, (source, config) in enumerate(zip(recipe.sources, configs, strict=True), 1):
        yield {
            "files": [files.member_file(number, k) for k in range(len(source.trials))],
            "run": source.run.resolve().name,
            "trials": list(source.trials),
            "weight": source.weight / total,
            "temperature": source.temperature,
            "config": config,
        }


def _size(configs: Sequence[Mapping[str, Any]]) -> int:
    sizes = {int(config["image_size"]) for config in configs}
    if len(sizes) > 1:
        listed = ", ".join(map(str, sorted(sizes)))
        raise ValueError(f"the members see images of different sizes ({listed} px)")
    return sizes.pop()


def compare(network: "Network", folder: Path, choice: Choice, size: int) -> dict[str, Any]:
    """How far the ONNX file is from PyTorch, and that from what is on record.

    Raises ValueError where that is too far.
    """
    from analysis.use.network import say
    from analysis.use.runtime import run, session

    images, wanted = _examples(choice, size)
    torch_said, onnx = say(network, images), session(folder / files.ONNX)
    apart = 0.0
    for rows in (slice(0, 1), slice(1, 4), slice(4, None)):  # any number of images at a time
        for mine, theirs in zip(torch_said, run(onnx, images[rows]), strict=True):
            apart = max(apart, float(np.abs(mine[rows] - theirs).max(initial=0)))
    if not apart < TOLERANCE:
        raise ValueError(
            f"the ONNX file is up to {apart:.1e} away from PyTorch, {TOLERANCE:.0e} is allowed: "
            "this network cannot be exported faithfully"
        )
    if wanted is None:
        return {"images": len(images), "onnx": apart, "stored": None, "on": "random images"}
    away = np.abs(torch_said[0] - wanted).max(1)
    if not away.mean() < LIKE:
        raise ValueError(
            f"the network is {away.mean():.2f} away from the predictions on record: its weights, "
            "its data or this program have changed since"
        )
    stored = float(away.max())
    return {"images": len(images), "onnx": apart, "stored": stored, "on": "images of the data"}


def _examples(choice: Choice, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Images (N, 3, S, S), and what is on record of them (N, K): those of the data, if there."""
    stored = choice.stored
    if stored is not None:
        with contextlib.suppress(ValueError):  # the data is gone, or is other data
            split = getattr(bundle_of(choice.meta), stored.split)
            place = {image: row for row, image in enumerate(stored.ids)}
            rows = [k for k, image in enumerate(split.ids) if image in place][:IMAGES]
            if len(rows) > 4:
                wanted = stored.probs[[place[split.ids[k]] for k in rows]]
                return np.array(split.images[rows]), wanted
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (8, 3, size, size), dtype=np.uint8), None


def main(argv: Sequence[str] | None = None) -> int:
    """Write the best trial of a run, or the ensemble, as a folder to use without the training."""
    parser = Parser(prog="python -m analysis.export", description=main.__doc__)
    parser.add_argument("run", type=Path, help="the folder of a run, such as runs/smoke")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write, a new one")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--best", action="store_true", help="the best single trial of the report (the default)"
    )
    which.add_argument("--trial", metavar="ID", help="this trial")
    which.add_argument(
        "--ensemble",
        type=Path,
        nargs="?",
        const=Path(),
        metavar="FILE",
        help="the ensemble of RUN/report/ensemble.json, or of another ensemble.json",
    )
    parser.add_argument(
        "--corrected",
        action="store_true",
        help="a single trial with the correction after training that validation chose: mean with "
        "the mirror image, temperature, logit adjustment",
    )
    args = parser.parse(argv)
    if args.corrected and args.ensemble is not None:
        parser.error("--corrected is of a single trial; an ensemble has its own temperatures")
    if args.out.exists() or args.out.is_symlink():
        raise FileExistsError(f"'{args.out}' exists: give a new folder, nothing is overwritten")
    run = RunStore.open(args.run)
    if args.ensemble is not None:
        named = args.ensemble != Path()
        choice = ensemble(run, args.ensemble if named else args.run / "report" / "ensemble.json")
    else:
        found, trial = trial_of(run, args.trial) if args.trial else best(run)
        choice = corrected(found, trial) if args.corrected else as_trained(found, trial)
    about = export(choice, args.out)
    print(f"{about['title']}, in {args.out}")
    parity = about["parity"]
    print(f"ONNX against PyTorch on {parity['images']} {parity['on']}: {parity['onnx']:.1e} apart")
    print(f"python -m analysis.predict {args.out} PICTURES --out predictions.csv")
    return 0


if __name__ == "__main__":
    run_command(main)
