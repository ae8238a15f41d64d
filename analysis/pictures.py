"""What the best model looks at: its surest mistakes on validation images, Grad-CAM, AU attention.

It needs torch, which it imports when it works.
Images of the sealed test split are never looked at. n images, K classes, A AUs, S pixels a side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.findings import Findings
from analysis.leaderboard import Board
from analysis.prepared import bundle_of
from analysis.sheets import Pictures, Tile, sheet
from trainables.config import TrialConfig
from trainables.data.tables import au_boxes, region_maps
from trainables.metrics import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.data.bundle import DataBundle, Split
    from trainables.model import FERModel

WEIGHTS = "weights.safetensors"
SHOWN = 12  # mistakes on the sheet
MEASURED = 256  # images whose shares are measured, spread evenly over the validation images
AT_ONCE = 32
ROUNDS = 1000  # of the bootstrap of the mean share
FAR_FROM = "the boxes are of aligned faces; on others they say little"


@dataclass(frozen=True)
class Looks:
    """Where a model looks in n images."""

    cams: Floats  # (n, h, w), at least 0
    attention: Floats | None  # (n, A, h', w'), each summing to 1, where the model has AU maps


def pictures(findings: Findings) -> Pictures:
    """The contact sheet of the best single trial; or the reason why there is none."""
    board, trial = findings.board, findings.best
    if trial is None:
        return Pictures(missing="no trial has usable predictions")
    if missing := _lacking(board, trial):
        return Pictures(missing=missing)
    try:
        bundle = bundle_of(board.meta)
    except ValueError as error:
        return Pictures(missing=str(error))
    model = _model(board, trial, bundle)
    return _looked(findings, trial, model, bundle)


def _lacking(board: Board, trial: str) -> str:
    """What is not there that the pictures need."""
    if board.record(trial).config.get("features", "none") != "none":
        return f"trial {trial} is a classifier of features, it has no maps to look at"
    if not (board.run.trial(trial).path / WEIGHTS).is_file():
        return f"trial {trial} has no weights on record"
    return ""


def _model(board: Board, trial: str, bundle: "DataBundle") -> "FERModel":
    from safetensors.torch import load_file

    from trainables.model import build_model

    config = TrialConfig.from_flat({**board.record(trial).config, "weights": "none"})
    names = len(bundle.class_names), len(bundle.au_names)
    model = build_model(config, *names, bundle.components, len(bundle.basic_names))
    model.load_state_dict(load_file(board.run.trial(trial).path / WEIGHTS))
    return model.eval()


def _looked(findings: Findings, trial: str, model: "FERModel", bundle: "DataBundle") -> Pictures:
    """The sheet of the surest mistakes, and how much of its attention falls in AU boxes."""
    board, split = findings.board, bundle.val
    place = {name: row for row, name in enumerate(split.ids)}
    probs = board.votes.full.probs[board.votes.full.row(trial)]
    wrong, sure = board.votes.predicted[board.votes.row(trial)] != board.votes.labels, probs.max(1)
    order = [n for n in np.argsort(-sure, kind="stable") if wrong[n]][:SHOWN]
    if any(board.votes.ids[n] not in place for n in order):
        return Pictures(missing="the validation images of the data are not those of the run")
    is_cross = board.record(trial).config.get("attention") == "au_cross"
    rows = [place[board.votes.ids[n]] for n in order]
    words = _measured(model, bundle, is_cross)
    if not order:
        return Pictures(words=words, missing=f"trial {trial} makes no mistake here")
    looks = look(model, split, rows, is_cross)
    tiles, table = [], []
    for at, (n, row) in enumerate(zip(order, rows, strict=True)):
        names = [board.class_names[k] for k in (board.votes.labels[n], probs[n].argmax())]
        active = _active(bundle, row)
        told = _told(looks, at, active, bundle.au_names)
        heats = [looks.cams[at]]
        if looks.attention is not None:
            own = [bundle.au_names.index(u) for u in active]
            heats.append(looks.attention[at][own or slice(None)].mean(0))
        boxes = tuple(box for u in active for box in au_boxes(u))
        said = f"said: {names[1]} ({sure[n]:.2f})"
        lines = (f"true: {names[0]}", said, *told.values(), " ".join(active))
        tiles.append(Tile(np.array(split.images[row]), tuple(heats), boxes, lines))
        facts = {"image": split.ids[row], "true": names[0], "said": names[1]}
        table.append({**facts, "confidence": f"{sure[n]:.2f}", **told})
    return Pictures(sheet(tiles), words, tuple(table))


def _active(bundle: "DataBundle", row: int) -> list[str]:
    """The AUs that the image shows and that have a box."""
    shown = np.flatnonzero(bundle.val.aus[row] == 1)
    return [bundle.au_names[a] for a in shown if au_boxes(bundle.au_names[a])]


def _told(looks: Looks, at: int, active: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    if not active:
        return {"CAM in AU boxes": "–"}
    inside, area = share_inside(looks.cams[at], active)
    told = {"CAM in AU boxes": f"CAM in boxes {inside:.0%}, area {area:.0%}"}
    if looks.attention is not None:
        pairs = [share_inside(looks.attention[at][names.index(u)], [u]) for u in active]
        share, chance = (float(np.mean(x)) for x in zip(*pairs, strict=True))
        told["AU attention in its box"] = f"AU attention {share:.0%}, area {chance:.0%}"
    return told


def look(model: "FERModel", split: "Split", rows: Sequence[int], is_cross: bool) -> Looks:
    """Grad-CAM of the class said, and the maps of AUs, of some images."""
    import torch

    cams: list[Floats] = []
    maps: list[Floats] = []
    for start in range(0, len(rows), AT_ONCE):
        part = np.array(split.images[list(rows[start : start + AT_ONCE])])
        cam, au_maps = grad_cam(model, torch.from_numpy(part).float() / 255)
        cams.append(cam.numpy())
        if au_maps is not None:
            maps.append(places(au_maps, is_cross).numpy())
    return Looks(np.concatenate(cams), np.concatenate(maps) if maps else None)


def grad_cam(model: "FERModel", images: "Tensor") -> tuple["Tensor", "Tensor | None"]:
    """Where the logit of the class said comes from (n, h, w), on the last map that it depends on.

    Selvaraju et al. 2017 (1610.02391): channels weighted by the mean of their gradient, summed,
    negative parts cut. A transformer's tokens are a map here as well. Also the AU maps, if any.
    """
    import torch

    seen: list[list[Tensor]] = []
    hook = model.fusion.register_forward_pre_hook(lambda _, args: seen.append(list(args[0])))
    try:
        with torch.enable_grad():
            out = model(images)
            top = out.logits.max(1).values.sum()
            grads = torch.autograd.grad(top, seen[0], allow_unused=True)
    finally:
        hook.remove()
    used = [(m, g) for m, g in zip(seen[0], grads, strict=True) if g is not None]
    features, slope = used[-1]
    cam = (slope.mean((2, 3), keepdim=True) * features).sum(1).clamp_min(0)
    return cam.detach(), None if out.au_maps is None else out.au_maps.detach()


def places(au_maps: "Tensor", is_cross: bool) -> "Tensor":
    """The AU maps (n, A, h, w) as shares of attention over the places of the map."""
    flat = au_maps.flatten(2)
    shares = flat.softmax(2) if is_cross else flat.sigmoid() / flat.sigmoid().sum(2, keepdim=True)
    return shares.view_as(au_maps)


def share_inside(heat: NDArray[np.floating], active: Sequence[str]) -> tuple[float, float]:
    """The share of a map (h, w) inside the boxes of these AUs, and the share of their area.

    The map's cells are squares of the image; NaN for a map that is 0 everywhere.
    """
    h, w = heat.shape
    size = int(np.lcm(h, w)) * max(1, 56 // int(np.lcm(h, w)))
    inside = region_maps(active, size).max(0)
    fine = np.kron(heat, np.ones((size // h, size // w)))
    total = float(fine.sum())
    return (float((fine * inside).sum()) / total if total > 0 else float("nan")), float(
        inside.mean()
    )


def _measured(model: "FERModel", bundle: "DataBundle", is_cross: bool) -> tuple[str, ...]:
    """Mean shares over images that show an AU with a box, with intervals, beside chance."""
    every = [row for row in range(len(bundle.val)) if _active(bundle, row)]
    if not every:
        return ("No validation image has an AU on record that has a place in the face.",)
    rows = every[:: -(-len(every) // MEASURED)]
    looks = look(model, bundle.val, rows, is_cross)
    cams, own = [], []
    for at, row in enumerate(rows):
        active = _active(bundle, row)
        cams.append(share_inside(looks.cams[at], active))
        if looks.attention is not None:
            maps = [looks.attention[at][bundle.au_names.index(u)] for u in active]
            pairs = [share_inside(m, [u]) for m, u in zip(maps, active, strict=True)]
            own.append(tuple(np.mean(pairs, 0)))
    lines = [
        f"Grad-CAM inside the boxes of the AUs that an image shows: {_mean(cams)}; {FAR_FROM}."
    ]
    if own:
        lines.append(f"Attention of an AU that is shown inside its own box: {_mean(own)}.")
    return tuple(lines)


def _mean(pairs: Sequence[tuple[float, float]]) -> str:
    """The mean share with its interval over images, beside that of area, which is chance."""
    found = np.array(pairs)
    found = found[np.isfinite(found).all(1)]
    if not len(found):
        return "nothing, the maps are 0 everywhere"
    rng = np.random.default_rng(0)
    means = found[rng.integers(len(found), size=(ROUNDS, len(found))), 0].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    share, area = found.mean(0)
    return (
        f"{share:.1%} [{low:.1%}, {high:.1%}] over {len(found)} validation images; "
        f"the boxes cover {area:.1%}, which is what looking anywhere would give"
    )
