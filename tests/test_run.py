"""The main command before any trial: its flags, and what it says of bad input."""

import re
from pathlib import Path

import pytest
from small_data import class_folders, draw

from search.options import parser

QUICK = ("--inline", "--data", "faces:200:easy", "--image-size", "32", "--trials", "2")
SMOKE = ("--space", "smoke", *QUICK, "--epochs", "1")


# --- flags ---------------------------------------------------------------------------------------


def test_the_flag_list_is_exactly_this():
    flags = {f for action in parser()._actions for f in action.option_strings}
    assert flags == {
        "-h", "--help", "--space", "--data", "--weights", "--aus", "--tier", "--trials", "--epochs",
        "--image-size", "--sampler", "--metric", "--seed", "--inline", "--address",
        "--gpus-per-trial", "--cpus-per-trial", "--no-dashboard", "--name", "--runs", "--resume",
        "--dry-run", "--pruner", "--objectives", "--warm-start", "--hours", "--gpu-hours",
        "--folds", "--fold-seed", "--confirm",
        "--cpu-ranks", "--placement", "--max-concurrent", "--log", "--au-null", "--au-sides",
        "--configs", "--seeds",
        "--synthetic",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--spcae", "smoke"], "unknown flag '--spcae'; .*Did you mean '--space'?"),
        (["--trails=3"], "unknown flag '--trails'; .*Did you mean '--trials'?"),
        (["--trial", "3"], "unknown flag '--trial'; "),  # no abbreviations
        (["sprint2"], "'sprint2' stands alone: every value follows its flag"),
        (["--trials", "abc"], "--trials: 'abc' is no whole number; give 1 to 100000"),
        (["--trials", "0"], "--trials: 0 is too small; give 1 to 100000"),
        (["--trials", "1000000000"], "--trials: 1000000000 is too large"),
        (["--epochs", "1.5"], "--epochs: '1.5' is no whole number"),
        (["--epochs", "-1"], "--epochs: -1 is too small"),
        (["--image-size", "8"], "--image-size: 8 is too small; give 32 to 1024"),
        (["--image-size", "5000"], "--image-size: 5000 is too large"),
        (["--seed", "-1"], "--seed: -1 is too small"),
        (["--gpus-per-trial", "two"], "--gpus-per-trial: 'two' is no number; give 0 or more"),
        (["--gpus-per-trial", "-1"], "--gpus-per-trial: -1 cannot be; give 0 or more"),
        (["--gpus-per-trial", "nan"], "--gpus-per-trial: nan cannot be"),
        (["--cpus-per-trial", "0"], "--cpus-per-trial: 0 cannot be; give a number above 0"),
        (["--space"], "--space: expected one argument"),
    ],
)
def test_a_bad_flag_gets_one_message(refused, words, message):
    assert re.search(message, refused(*words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--space is missing; known: smoke, sprint1, .*, or the path of a .py file"),
        (["--space", "smok"], "unknown space 'smok'; known: "),
        (["--space", "nowhere.py"], "no space file at 'nowhere.py'"),
        ([*SMOKE, "--tier", "tinny"], "unknown tier 'tinny'; .*Did you mean 'tiny'"),
        ([*SMOKE, "--sampler", "tep"], "unknown sampler 'tep'; .*Did you mean 'tpe'"),
        ([*SMOKE, "--metric", "macro_f"], "unknown metric 'macro_f'; .*Did you mean 'macro_f1'"),
        ([*SMOKE, "--log", "tensorbord"], "--log: unknown tool 'tensorbord'; .*'tensorboard'"),
        ([*SMOKE, "--weights", "missing.pth"], "no weights at 'missing.pth'; give a file"),
        ([*SMOKE, "--weights", "package"], "weights 'package' fit no backbone of space 'smoke'"),
        ([*SMOKE, "--aus", "plan19"], "unknown AU vocabulary 'plan19'"),
        ([*SMOKE, "--data", "nowhere"], "no data at 'nowhere': no such file or folder"),
        ([*SMOKE, "--data", "faces:many"], "'many' in 'faces:many' is no number"),
        ([*SMOKE, "--data", "faces:200:hrd"], "unknown difficulty 'hrd'"),
        ([*SMOKE, "--gpus-per-trial", "1"], "--gpus-per-trial is for trials on Ray, --inline runs"),
        ([*SMOKE, "--address", "auto"], "--address is for trials on Ray, --inline runs them here"),
        ([*SMOKE, "--name", "a/b"], "--name 'a/b' is not a folder name; use --runs"),
        ([*SMOKE, "--name", ".."], "--name '..' is not a folder name"),
        ([*SMOKE, "--name", " "], "--name ' ' is not a folder name"),
        ([*SMOKE, "--name", "x", "--resume"], "no run at 'runs/x'"),
        ([*SMOKE, "--resume"], "nothing to resume: no run of space 'smoke' in 'runs'"),
        ([*SMOKE, "--runs", "/proc/x"], "cannot write the run to '/proc/x/.*give --runs a folder"),
        (
            [*SMOKE, "--runs", "/dev/null/x"],
            "cannot write the run to '/dev/null/x.*Not a directory",
        ),
    ],
)
def test_what_does_not_exist_is_told_with_what_does(refused, words, message):
    assert re.search(message, refused(*words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus-per-trial", "1000"], "a trial asks for 1000 GPUs, but there are"),
        (["--cpus-per-trial", "100000"], "a trial asks for 100000 CPUs, but there are"),
        (["--address", "garbage"], "--address 'garbage' cannot be read: give auto, or the HOST:"),
        (["--address", "127.0.0.1:1"], "no Ray cluster answers at '127.0.0.1:1'"),
        (["--address", ""], "--address '' cannot be read"),
    ],
)
def test_a_place_that_does_not_exist_is_refused_before_ray_and_data(
    refused, monkeypatch, words, message
):
    def never(*_, **__):
        raise AssertionError("started")

    monkeypatch.setattr("search.cluster.start_ray", never)
    monkeypatch.setattr("trainables.data.cache.prepare", never)
    assert message in refused("--space", "smoke", *words)


def test_several_gpus_or_ranks_make_a_trial_a_gang():
    from search.prepare import choose_resources

    args = parser().parse(["--gpus-per-trial", "2", "--placement", "strict-pack"])
    resources = choose_resources(args, 4, 4)
    assert (resources.size, resources.bundle) == (2, {"CPU": 1, "GPU": 1})
    args = parser().parse(["--cpu-ranks", "3", "--gpus-per-trial", "0", "--max-concurrent", "5"])
    resources = choose_resources(args, 8, 4)
    assert (resources.size, resources.bundle, resources.max_concurrent) == (3, {"CPU": 1}, 5)


def test_gpu_hours_without_gpus_are_refused(refused):
    told = refused(*SMOKE, "--gpus-per-trial", "0", "--gpu-hours", "3")
    assert "--gpu-hours 3 would never be used up, for no trial has a GPU: give --hours" in told


def test_a_sampler_that_cannot_be_is_refused_before_the_data_are_read(refused):
    told = refused(*SMOKE, "--objectives", "macro_f1,latency", "--sampler", "cmaes")
    assert "take nsga2 or tpe" in told


# --- data and space files ------------------------------------------------------------------------


def bad_data(root: Path, kind: str) -> Path:
    root.mkdir()
    if kind == "empty":
        return root
    if kind == "one class":
        draw(root / "a" / "0.png", 0)
        draw(root / "a" / "1.png", 1)
        return root
    class_folders(root, 6)
    if kind == "single":
        draw(root / "lonely" / "0.png", 999)
    if kind == "truncated":
        image = root / "angry" / "0.png"
        image.write_bytes(image.read_bytes()[:60])
    if kind == "no image":
        (root / "angry" / "x.png").write_text("hello")
    if kind == "contradiction":
        (root / "sad" / "copy.png").write_bytes((root / "angry" / "0.png").read_bytes())
    if kind in ("missing", "outside"):
        odd = "sad/99.png" if kind == "missing" else "../outside.png"
        rows = ["angry/0.png,a", "angry/1.png,a", "sad/0.png,b", f"{odd},b"]
        (root / "manifest.csv").write_text("\n".join(["path,label", *rows]))
    return root


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "no known data layout at"),
        ("one class", "all images are of one class, 'a'"),
        ("single", "classes with a single image cannot be split: lonely"),
        ("truncated", "angry/0.png (image file is truncated)"),
        ("no image", "angry/x.png (not an image)"),
        ("contradiction", "are the same image, labelled 'angry' and 'sad'"),
        ("missing", "sad/99.png (missing)"),
        ("outside", "'../outside.png' leads out of the folder"),
    ],
)
def test_bad_data_are_refused_and_leave_no_run(refused, place, kind, message):
    data = bad_data(place / "data", kind)
    assert message in refused(*SMOKE, "--data", str(data))


def space_file(place: Path, body: str) -> str:
    path = place / "mine.py"
    path.write_text(f"from spaces.space import *\n{body}\n")
    return str(path)


PLAIN = "'backbone': 'small_resnet', 'lr': LogUniform(1e-3, 1e-2, 2e-3)"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", "fails: ZeroDivisionError"),
        ("raise SystemExit(0)", "fails: SystemExit"),
        ("x = 1", "defines no SPACE"),
        (f"SPACE = Space('m', {{{PLAIN}, 'los': 'focal'}})", "unknown setting 'los'"),
        (f"SPACE = Space('m', {{{PLAIN}, 'loss': 'focl'}})", "Did you mean 'focal'?"),
        (
            f"SPACE = Space('m', {{{PLAIN}, 'dropout': Uniform(0, 1, 0, {{'mix': ('mixup',)}})}})",
            "its condition names ['mix'], which must stand before it",
        ),
        (
            f"SPACE = Space('m', {{{PLAIN}, 'loss': 'ldam', 'rebalance': 'sampler'}})",
            "two corrections multiply",
        ),
        ("SPACE = Space('m', {'backbone': 'resnt50'})", "Did you mean 'resnet50'"),
        (f"SPACE = Space('m', {{{PLAIN}, 'epochs': IntRange(1, 3, 2)}})", "varies epochs"),
        (f"SPACE = Space('m', {{{PLAIN}, 'dropout': 7.0}})", "'dropout' cannot be 7"),
        (
            f"SPACE = Space('m', {{{PLAIN}, 'loss': 'focal', 'loss.gamma': 'big'}})",
            "argument 'gamma' of loss 'focal' wants a number, not 'big'",
        ),
    ],
)
def test_a_space_file_that_cannot_be_run_is_refused(refused, place, body, message):
    assert message in refused("--space", space_file(place, body), *QUICK)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("'attention': 'au_cross'", "asks for attention au_cross, but the data has no AU labels"),
        ("'head': 'additive'", "asks for head additive, but the classes are not compounds"),
    ],
)
def test_a_space_that_insists_on_what_the_data_lacks_is_refused(refused, place, setting, message):
    data = class_folders(place / "data", 8)
    space = space_file(place, f"SPACE = Space('m', {{{PLAIN}, {setting}}})")
    assert message in refused("--space", space, *QUICK, "--data", str(data))


# --- a dry run -----------------------------------------------------------------------------------


def test_a_dry_run_starts_nothing_and_fits_80_columns(ended, place, monkeypatch):
    monkeypatch.setattr("search.cluster.start_ray", None)
    words = [word for word in SMOKE if word != "--inline"]
    code, out, err = ended(*words, "--dry-run", "--cpus-per-trial", "1")
    assert (code, err) == (0, "")
    assert list(place.iterdir()) == []
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("SYNTHETIC") == 1
    said = " ".join(out.split())  # where a line breaks depends on the figures in it
    for text in ("this machine", "space smoke", "2 trials of up to 1 epochs", "(measured here)"):
        assert text in said
    assert "nothing was started" in out


def test_a_dry_run_does_not_take_this_machine_for_the_cluster(ended, monkeypatch):
    monkeypatch.setattr("search.prepare.check_address", lambda address: None)
    words = [word for word in SMOKE if word != "--inline"]
    _, out, _ = ended(*words, "--dry-run", "--address", "10.0.0.1:6379")
    assert "the cluster at 10.0.0.1:6379, not joined" in out
    assert "this machine" not in out
    assert "divided by how many the" in out


def test_data_without_aus_is_searched_without_au_parts_and_says_so(ended, place):
    data = class_folders(place / "data [red]", 8)  # brackets are markup to rich
    code, out, _ = ended(*SMOKE, "--data", str(data), "--dry-run")
    assert code == 0
    assert "data [red]: train" in out
    assert "AU loss and AU-guided attention are off" in " ".join(out.split())
