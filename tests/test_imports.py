"""Who may import whom (DESIGN.md 2), each import in a fresh process."""

import subprocess
import sys

import pytest

OURS = ["spaces", "trainables", "search", "analysis"]
LONG = {"scipy.stats", "cmaes", "plotly", "sklearn", "skimage"}  # up to a second each
LIGHT = ["analysis.report", "analysis.ablate", "search.mfgp", "trainables.features.plugins"]
HEAVY = ["torch", "timm", "ray", "optuna", "plotly", "sklearn"]
FORBIDDEN = {
    "spaces.sprint2": ["trainables", "search", "analysis", "numpy", *HEAVY],
    "spaces.show": ["trainables", "search", "analysis", "numpy", *HEAVY],
    "spaces.tiers": ["trainables", "search", "analysis", "numpy", *HEAVY],
    "trainables.trial": ["ray", "optuna", "spaces", "search", "analysis"],
    "trainables.store": ["spaces", "search", "analysis", *HEAVY],
    "trainables.metrics": ["spaces", "search", "analysis", *HEAVY],
    "trainables.data.cache": ["spaces", "search", "analysis", "torch", "ray", "optuna"],
    "trainables.pretraining.command": ["ray", "optuna", "spaces", "search", "analysis"],
    "trainables.pretraining.exclusion": ["spaces", "search", "analysis", "torch", "ray", "optuna"],
    "trainables.pretraining.record": ["spaces", "search", "analysis", "numpy", *HEAVY],
    "search.core": ["analysis", "torch", "ray", "optuna"],
    "search.pruners": ["analysis", "torch", "ray", "optuna"],
    "search.proposer": ["analysis", "torch", "ray", "optuna"],
    "search.study": ["analysis", "torch", "ray"],
    "search.run": ["torch", "timm", "ray", "optuna", "plotly", "sklearn", "pandas"],
    "analysis.leaderboard": ["ray", "optuna", "torch", "spaces", "search"],
    "analysis.ensemble": ["ray", "optuna", "torch", "spaces", "search"],
    "analysis.pool": ["ray", "optuna", "torch", "spaces", "search"],
    "analysis.soup": ["ray", "optuna", "torch", "spaces", "search"],  # torch when it works
    "analysis.report": ["ray", "optuna", "torch", "spaces", "search"],
    "analysis.page": ["ray", "optuna", "torch", "spaces", "search"],
    "analysis.pictures": ["ray", "optuna", "torch", "spaces", "search"],
    "analysis.compare": ["ray", "optuna", "torch", "spaces", "search"],
    "trainables.npz": ["spaces", "search", "analysis", *HEAVY],
    "analysis.ablate": ["ray", "optuna", "torch", "spaces", "search"],
    "analysis.posthoc": ["ray", "optuna", "torch", "spaces", "search"],
    "analysis.predict": ["spaces", "search", "pandas", "scipy", "safetensors", "onnx", *HEAVY],
    "analysis.export": ["ray", "optuna", "torch", "spaces", "search"],
    "analysis.use.members": ["ray", "optuna", "spaces", "search"],
    "trainables.views": ["spaces", "search", "analysis", *HEAVY],
}


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", FORBIDDEN)
def test_module_stays_in_its_lane(module: str) -> None:
    assert not loaded_by(module) & set(FORBIDDEN[module])


@pytest.mark.parametrize("module", LIGHT)
def test_what_takes_long_to_import_is_imported_where_it_is_needed(module: str) -> None:
    code = f"import sys, {module}; print(*{LONG} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


def test_the_rule_can_fail() -> None:
    assert "torch" in loaded_by("trainables.model")
