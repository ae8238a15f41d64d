"""`python -m analysis.soup RUN`: weight soups, trials whose weights are the mean of others'.

A soup (Wortsman et al. 2022, 2203.05482) costs what one model costs. It needs members of the same
network and the same start: here all settings but TRAINING are alike, the seed, which draws the
head, among them. RUN/soups is a run like any other, so `python -m analysis.ensemble RUN RUN/soups`
lets a soup compete. Only the uniform soup of all completed members is made: one chosen by
validation scores, as the greedy soup is, could not be scored honestly on the same images.
It needs torch, which it imports when it works.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.leaderboard import Board, read_board, status
from analysis.prepared import bundle_of
from trainables import metrics
from trainables.cli import Parser, run_command
from trainables.config import TrialConfig
from trainables.store import Predictions, Record, RunStore, TrialResult, TrialStore, write_json

if TYPE_CHECKING:
    from torch import Tensor, device, nn

    from trainables.data.bundle import DataBundle

TRAINING = (  # settings that leave network and start as they are; their arguments too
    *("loss", "rebalance", "au_balance", "au_prior", "curriculum", "curriculum_drives"),
    *("curriculum_order", "curriculum_reversed", "average", "sam"),
    *("augment", "mix", "mix_off", "soft_labels", "au_weight", "au_loss"),
    *("synthetic", "synthetic_set"),
    *("region_weight", "epochs", "batch_size", "lr", "head_lr_multiplier", "weight_decay"),
    *("warmup_epochs", "ema", "clip", "dropout", "drop_path", "metric"),
)
WEIGHTS = "weights.safetensors"
BATCH = 64
STATISTICS_IMAGES = 2048  # that batch norm is estimated on anew
ROLE = "soup"


class MismatchError(ValueError):
    """Weights of different shapes: settings that look alike made different networks."""


def kettles(board: Board) -> list[list[Record]]:
    """The groups of at least two completed trials that may be averaged, in order of proposal.

    None on folds: a fold has trained on validation images, on which soups are scored.
    """
    found: dict[str, list[Record]] = {}
    for record in board.records:
        has_weights = (board.run.trial(record.id).path / WEIGHTS).is_file()
        is_network = record.config.get("features", "none") == "none"
        is_network = is_network and int(record.config.get("folds", 1)) == 1
        if status(record, board.meta) != "completed" or not (has_weights and is_network):
            continue
        found.setdefault(start_of(record.config), []).append(record)
    return [group for group in found.values() if len(group) > 1]


def start_of(config: Mapping[str, Any]) -> str:
    """What two trials of one network and one start have in common."""
    kept = {k: v for k, v in config.items() if k.partition(".")[0] not in TRAINING}
    kept["an AU head"] = config.get("au_loss") != "none" and config.get("au_weight", 0) > 0
    kept["a normalised head"] = config.get("loss") == "ldam"
    return json.dumps(kept, sort_keys=True)


def mean_weights(states: Sequence[Mapping[str, "Tensor"]]) -> dict[str, "Tensor"]:
    """The mean of each tensor; counters are the first's. Raises MismatchError if shapes differ."""
    import torch

    out: dict[str, Tensor] = {}
    first = states[0]
    for name, tensor in first.items():
        if any(s.keys() != first.keys() or s[name].shape != tensor.shape for s in states):
            raise MismatchError(f"the weights differ in shape at '{name}'")
        if tensor.is_floating_point():
            stacked = torch.stack([state[name].float() for state in states])
            out[name] = stacked.mean(0).to(tensor.dtype)
        else:
            out[name] = tensor.clone()
    return out


def simmer(model: "nn.Module", bundle: "DataBundle", where: "device") -> None:
    """Estimate batch norm's statistics anew: averaged weights see other activations."""
    import numpy as np
    import torch
    from torch import nn

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # of a cumulative mean
        norm.train()
    count = len(bundle.train)
    order = np.random.default_rng(0).permutation(count)[:STATISTICS_IMAGES]
    with torch.no_grad():
        for start in range(0, len(order), BATCH):
            rows = np.sort(order[start : start + BATCH])
            if len(rows) > 1 or start == 0:
                pixels = torch.from_numpy(np.array(bundle.train.images[rows]))
                model(pixels.to(where).float() / 255)
    model.eval()


def cook(board: Board, group: Sequence[Record], out: RunStore) -> TrialStore:
    """Average a group's weights, predict, and write the soup as a trial of `out`."""
    from safetensors.torch import load, save

    from trainables import cost
    from trainables.device import default_device
    from trainables.model import build_model

    started = time.monotonic()
    bundle = bundle_of(board.meta)
    config = TrialConfig.from_flat(group[0].config)
    files = [(board.run.trial(r.id).path / WEIGHTS).read_bytes() for r in group]
    weights = mean_weights([load(data) for data in files])
    where = default_device()
    model = build_model(
        TrialConfig.from_flat({**group[0].config, "weights": "none"}),
        len(bundle.class_names),
        len(bundle.au_names),
        bundle.components,
        len(bundle.basic_names),
    )
    model.load_state_dict(weights)
    model.to(where)
    simmer(model, bundle, where)
    names = "+".join(sorted(record.id for record in group))
    trial = out.trial(f"soup-{hashlib.sha256(names.encode()).hexdigest()[:10]}")
    trial.path.mkdir(parents=True, exist_ok=True)
    index = len(list(out.root.glob("trials/*/config.json")))
    head = {"index": index, "role": ROLE, "config": group[0].config}
    write_json(trial.path / "config.json", {**head, "members": [record.id for record in group]})
    val = _predicted(model, bundle, "val", where)
    trial.save_predictions("val", val)
    trial.save_predictions("test", _predicted(model, bundle, "test", where))
    tensors = {k: v.cpu().contiguous() for k, v in model.state_dict().items()}
    trial.write(WEIGHTS, save(tensors))
    row = {
        "epoch": config.epochs,
        **metrics.scores(val.labels, val.probs, board.goal.name),
        "parameters": cost.parameters(model),
        "latency_ms": cost.latency_ms(model, config.image_size),
        "seconds": time.monotonic() - started,
        "done": True,
    }
    trial.append(row)
    trial.finish(TrialResult("completed", row, config.epochs, row["seconds"]))
    return trial


def _predicted(model: "nn.Module", bundle: "DataBundle", name: str, where: "device") -> Predictions:
    import torch

    from trainables.loop import predict, predictions

    split = getattr(bundle, name)
    return predictions(split, *predict(model, split, where, torch.bfloat16))


def _opened(board: Board, root: Path) -> RunStore:
    """The run that the soups are trials of. Raises FileExistsError for another run's."""
    source = str(board.run.root.resolve())
    if not (root / "run.json").exists():
        name = f"{board.meta.get('name', board.run.root.name)}-soups"
        return RunStore.create(root, {**board.meta, "name": name, "soups_of": source})
    out = RunStore.open(root)
    theirs = out.meta().get("soups_of")
    is_inside = root.resolve().parent == Path(source)  # whose run may have been moved as a whole
    if theirs is None or (not is_inside and Path(theirs).resolve() != Path(source)):
        raise FileExistsError(
            f"'{root}' is {'a search' if theirs is None else f'the soups of {theirs}'}, not the "
            f"soups of '{board.run.root}': give another --out"
        )
    return out


def _missing(groups: Sequence[Sequence[Record]], out: RunStore) -> Iterable[Sequence[Record]]:
    """The groups that have no soup yet: an interrupted command goes on where it stood."""
    done = set()
    for path in out.root.glob("trials/*/config.json"):
        if out.trial(path.parent.name).result() is not None:
            done.add(tuple(json.loads(path.read_text()).get("members") or ()))
    return [group for group in groups if tuple(record.id for record in group) not in done]


def main(argv: Sequence[str] | None = None) -> int:
    """Average the weights of trials that share network and start; write them as RUN/soups."""
    parser = Parser(prog="python -m analysis.soup", description=main.__doc__)
    parser.add_argument("run", type=Path, help="the folder of a run, such as runs/smoke")
    parser.add_argument("--out", type=Path, help="folder of the soups, instead of RUN/soups")
    args = parser.parse(argv)
    board = read_board(RunStore.open(args.run))
    groups = kettles(board)
    if not groups:
        raise ValueError(
            f"no two completed trials of '{args.run}' share network and start and have stored "
            "weights of the data's own split (--folds 1): there is nothing to average"
        )
    out = _opened(board, args.out or args.run / "soups")
    for group in _missing(groups, out):
        try:
            trial = cook(board, group, out)
        except MismatchError as error:
            print(f"no soup of {', '.join(r.id for r in group)}: {error}", flush=True)
            continue
        members = [r.history[-1]["score"] for r in group]
        score = trial.history()[-1]["score"]
        print(
            f"{trial.id}: score {score:.3f}, its {len(group)} members {min(members):.3f} to "
            f"{max(members):.3f}",
            flush=True,
        )
    print(f"python -m analysis.ensemble {args.run} {out.root} lets the soups compete")
    return 0


if __name__ == "__main__":
    run_command(main)
