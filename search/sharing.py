"""What share of a GPU a trial gets where the command does not say."""

import math
from typing import TYPE_CHECKING

from search.folder import read_meta
from search.pretrained import networks_in
from trainables.config import TrialConfig
from trainables.store import RunStore

if TYPE_CHECKING:
    from search.job import Job


def usual_share(job: "Job", cpus: float, gpus: float) -> float:
    """As the run that goes on has it, else the tier's for its own networks, else a whole GPU.

    No more trials share a GPU than the CPUs and --max-concurrent put there: Ray fills one GPU
    before it uses the next.
    """
    if job.args.resume and (then := read_meta(RunStore(job.root)).get("gpus_per_trial")):
        return float(then)
    tier = job.sizes.tier
    is_small = job.sizes.image_size <= tier.image_size and networks(job) <= tier.networks
    if not gpus or not is_small:
        return 1.0
    at_once = min(cpus / (job.args.cpus_per_trial or 1), job.args.max_concurrent or math.inf)
    return 1 / max(1, min(round(1 / tier.gpus), math.ceil(at_once / gpus)))


def networks(job: "Job") -> set[str]:
    """The backbones that trials may have."""
    usual = TrialConfig().backbone.name
    if job.args.configs:
        return {str(flat.get("backbone", usual)) for _, flat in job.anchors}
    return set(networks_in(job.space)) or {usual}
