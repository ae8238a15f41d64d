"""Whether the weights that a trial begins with may know the images it is scored on."""

import logging
from pathlib import Path

from trainables.config import NAMED_WEIGHTS, TrialConfig
from trainables.data.bundle import DataBundle
from trainables.pretraining.exclusion import held_out_ids
from trainables.pretraining.record import foreign, read_record
from trainables.store import TrialStore
from trainables.weights import file_of

log = logging.getLogger(__name__)


def warn_of_leaks(config: TrialConfig, data: DataBundle) -> None:
    """Log a warning where weights pretrained here did not have this data set's validation and test
    images kept out; of weights from elsewhere nothing is known. `data` as the trial divides them.

    So too of a trial on another division whose data are unknown: its folder left its run.
    """
    if config.weights in NAMED_WEIGHTS:
        return
    path = file_of(config.weights, config.backbone.name)
    taught = _taught_otherwise(path, config)
    if taught and _data_of(path) is None:
        log.warning("trial %s: if they are of the same data, %s", config.trial_id, taught)
    warning = foreign(read_record(path), held_out_ids(data), data.name)
    if warning:
        log.warning("trial %s: %s", config.trial_id, warning)


def refuse_leaks(config: TrialConfig, data_name: str) -> None:
    """Raise ValueError where the weights are those of one of our trials on other folds of the data:
    it was taught the labels of images that are scored here."""
    if config.weights in NAMED_WEIGHTS:
        return
    path = file_of(config.weights, config.backbone.name)
    taught = _taught_otherwise(path, config)
    if taught and _data_of(path) == data_name:
        raise ValueError(
            f"{taught} ('{data_name}'). Take the weights of a trial on the same fold, folds and "
            "fold_seed, or weights that were taught no labels of these data, such as those of "
            "python -m trainables.pretraining"
        )


def _taught_otherwise(path: Path, config: TrialConfig) -> str:
    """A sentence where the weights are those of one of our trials on other folds; else ""."""
    theirs = _trial_of(path)
    if theirs is None or _division(theirs) == _division(config):
        return ""
    return (
        f"the weights '{path}' are of a trial on {_told(theirs)}, here it is {_told(config)}: it "
        "was taught the labels of images that are scored here"
    )


def _trial_of(path: Path) -> TrialConfig | None:
    """The configuration of the trial that left these weights; None for weights from elsewhere."""
    try:
        return TrialStore(path.parent).config()
    except (OSError, ValueError, LookupError, TypeError):  # of no trial, or of one of long ago
        return None


def _data_of(path: Path) -> str | None:
    """The name of the data of the run that such a trial is in."""
    try:
        return str(TrialStore(path.parent).run.meta()["data"]["name"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _division(config: TrialConfig) -> tuple[int, int, int]:
    """What divides training from validation images."""
    if config.folds == 1:
        return 1, 0, 0  # the data's own split, whatever the seed
    return config.folds, config.fold, config.fold_seed


def _told(config: TrialConfig) -> str:
    folds, fold, seed = _division(config)
    return "the data's own split" if folds == 1 else f"fold {fold} of {folds} (fold seed {seed})"
