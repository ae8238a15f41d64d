"""Whether the weights that a trial begins with may know the images it is scored on."""

import json
import logging
from pathlib import Path

from trainables.config import TrialConfig
from trainables.data.bundle import DataBundle
from trainables.pretraining.exclusion import held_out_ids
from trainables.pretraining.record import foreign, read_record
from trainables.weights import file_of

log = logging.getLogger(__name__)


def warn_of_leaks(config: TrialConfig, data: DataBundle) -> None:
    """Log a warning where weights pretrained here did not have this data set's validation and test
    images kept out, or are those of a trial that was taught some of them; of weights from elsewhere
    nothing is known."""
    if config.weights in ("none", "package", "hub"):
        return
    path = file_of(config.weights, config.backbone.name)
    if taught_others(path, config):
        log.warning(
            "trial %s: the weights '%s' are of a trial on another division into training and "
            "validation images: it was taught the labels of images that are scored here",
            config.trial_id,
            path,
        )
    record = read_record(path)
    warning = foreign(record, held_out_ids(data), data.name)
    if warning:
        log.warning("trial %s: %s", config.trial_id, warning)


def taught_others(path: Path, config: TrialConfig) -> bool:
    """Whether the weights are those of one of our trials, on other folds than the configuration."""
    try:
        theirs = TrialConfig.from_flat(
            json.loads((path.parent / "config.json").read_text())["config"]
        )
    except (OSError, ValueError, LookupError, TypeError):  # of no trial, or of one of long ago
        return False
    return any(getattr(theirs, n) != getattr(config, n) for n in ("folds", "fold", "fold_seed"))
