"""Whether the weights that a trial begins with may know the images it is scored on."""

import logging

from trainables.config import TrialConfig
from trainables.data.bundle import DataBundle
from trainables.pretraining.exclusion import held_out_ids
from trainables.pretraining.record import foreign, read_record
from trainables.weights import file_of

log = logging.getLogger(__name__)


def warn_of_leaks(config: TrialConfig, data: DataBundle) -> None:
    """Log a warning where weights pretrained here did not have this data set's validation and test
    images kept out; of weights from elsewhere nothing is known."""
    if config.weights in ("none", "package", "hub"):
        return
    record = read_record(file_of(config.weights, config.backbone.name))
    warning = foreign(record, held_out_ids(data), data.name)
    if warning:
        log.warning("trial %s: %s", config.trial_id, warning)
