"""Where a model looks: Grad-CAM by hand, shares in boxes, the sheet of a trained trial."""

import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from page import Page
from PIL import Image
from torch import nn

from analysis import pictures, report, sheets
from analysis.findings import find
from analysis.leaderboard import read_board
from trainables.config import TrialConfig
from trainables.data import cache
from trainables.data.tables import au_boxes, region_maps
from trainables.store import RunStore
from trainables.trial import run_trial

QUICK = {
    **{"backbone": "test_resnet", "image_size": 48, "epochs": 1, "ema": 0.0},
    **{"au_loss": "bce", "au_weight": 0.5, "attention": "au_spatial"},
}


@pytest.fixture(scope="module")
def run(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    bundle = cache.load(faces)
    data = {
        "class_names": list(bundle.class_names), "au_names": list(bundle.au_names),
        "fingerprint": bundle.fingerprint, "cache": str(faces), "source": "faces:300:easy",
    }  # fmt: skip
    run = RunStore.create(tmp_path_factory.mktemp("runs") / "run", {"name": "run", "data": data})
    trial = run.create_trial(TrialConfig.from_flat(QUICK), 0)
    list(run_trial(run.trial(trial, run.hand_out(trial)), faces))
    return run


class Toy(nn.Module):
    """Two channels, pooled by `fusion`; logits are W times the means."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.fusion, self.weights = Pool(), weights

    def forward(self, images: torch.Tensor) -> SimpleNamespace:
        maps = [torch.zeros(len(images), 1, 4, 4, requires_grad=True), images.requires_grad_()]
        return SimpleNamespace(logits=self.fusion(maps) @ self.weights.T, au_maps=None)


class Pool(nn.Module):
    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return maps[-1].mean((2, 3))


def test_grad_cam_by_hand() -> None:
    # of a mean over 4 cells the gradient is W / 4 everywhere: cam = relu(sum of W A) / 4
    weights = torch.tensor([[1.0, -2.0], [0.0, 0.0]])
    image = torch.tensor([[[[4.0, 1.0], [0.0, 2.0]], [[0.0, 1.0], [1.0, 0.5]]]])
    cam, au_maps = pictures.grad_cam(Toy(weights), image)  # type: ignore[arg-type]  # a toy
    assert au_maps is None
    torch.testing.assert_close(cam[0], torch.tensor([[1.0, 0.0], [0.0, 0.25]]))


def test_looking_nowhere_in_particular_gives_the_share_of_area_and_inside_gives_one() -> None:
    inside, area = pictures.share_inside(np.ones((7, 7)), ["AU12"])
    assert inside == pytest.approx(area)
    assert area == pytest.approx(region_maps(["AU12"], 56)[0].mean())
    full = region_maps(["AU12"], 56)[0] == 1
    assert pictures.share_inside(full.astype(float), ["AU12"])[0] == pytest.approx(1)
    outside = region_maps(["AU12"], 56)[0] == 0
    assert pictures.share_inside(outside.astype(float), ["AU12"])[0] == 0


def test_attention_of_each_au_sums_to_one() -> None:
    maps = torch.randn(2, 3, 4, 4)
    for is_cross in (True, False):
        torch.testing.assert_close(
            pictures.places(maps, is_cross).sum((2, 3)), torch.ones(2, 3), msg=str(is_cross)
        )


def test_the_sheet_shows_the_surest_mistakes_on_validation_images(run: RunStore) -> None:
    found = find(read_board(run))
    made = pictures.pictures(found)
    votes = found.board.votes.full
    wrong = votes.predicted[0] != votes.labels
    sure = np.sort(votes.probs[0].max(1)[wrong])[::-1][: len(made.rows)]
    assert [row["confidence"] for row in made.rows] == [f"{value:.2f}" for value in sure]
    assert {row["image"] for row in made.rows} <= set(votes.ids)
    width, height = Image.open(io.BytesIO(made.png)).size
    assert (width, height) == (3 * (3 * sheets.TILE + 12), 4 * (sheets.TILE + 5 * 15 + 12))
    assert "AU attention in its box" in made.rows[0]
    assert "validation images; the boxes cover" in made.words[0]


def test_heat_lies_where_the_model_looked_and_boxes_where_the_aus_are() -> None:
    heat = np.zeros((4, 4))
    heat[0, 0] = 1
    tile = sheets.Tile(
        np.full((3, 48, 48), 128, np.uint8), (heat,), tuple(au_boxes("AU12")), ("a",)
    )
    image = np.asarray(Image.open(io.BytesIO(sheets.sheet([tile]))).convert("RGB")).astype(int)
    left, top = sheets.GAP + sheets.TILE, sheets.GAP
    hot, cold = image[top + 5, left + 5], image[top + 5, left + sheets.TILE - 5]
    assert hot[0] > cold[0] + 40  # yellow against blue
    assert hot[2] - hot[0] < cold[2] - cold[0]
    x, y, *_ = au_boxes("AU12")[0]
    corner = image[sheets.GAP + round(sheets.TILE * y), sheets.GAP + round(sheets.TILE * x)]
    assert corner.tolist() == [255, 255, 255]


def test_the_page_holds_the_sheet_and_says_what_is_missing_without_it(
    run: RunStore, tmp_path: Path
) -> None:
    shutil.copytree(run.root, tmp_path / "run")
    copy = RunStore.open(tmp_path / "run")
    page = Page(report.write_report(copy, has_pictures=True).read_text())
    assert [a for a in page.addresses if a.startswith("data:image/png")]
    assert (copy.root / "report" / report.SHEET).read_bytes().startswith(b"\x89PNG")
    (path,) = (copy.root / "trials").glob("*/weights.safetensors")
    path.unlink()
    page = Page(report.write_report(copy, has_pictures=True).read_text())
    assert "has no weights on record" in page.text
    assert not (copy.root / "report" / report.SHEET).exists()
    page = Page(report.write_report(copy).read_text())
    assert "--pictures makes them" in page.text


def test_other_data_than_that_of_the_run_is_not_shown(run: RunStore, tmp_path: Path) -> None:
    shutil.copytree(run.root, tmp_path / "run")
    copy = RunStore.open(tmp_path / "run")
    meta = copy.meta()
    copy.update_meta(data={**meta["data"], "fingerprint": "beef"})
    assert "these are other images" in pictures.pictures(find(read_board(copy))).missing
