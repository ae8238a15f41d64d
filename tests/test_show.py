"""python -m spaces.show: a table for people, JSON for programs, one line for mistakes."""

import json
import subprocess
import sys
from itertools import combinations, takewhile

import pytest

from spaces.catalog import NAMES, find
from spaces.show import PARTS, as_json, breakable, conditions, kind, main, short, values
from spaces.space import Choice, Dimension, IntRange, LogUniform, Uniform
from spaces.tiers import TIERS, at_tier


def shown(capsys, monkeypatch, *words: str) -> list[str]:
    monkeypatch.setenv("COLUMNS", "80")
    main(words)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_table_names_every_setting_in_80_columns(name, capsys, monkeypatch) -> None:
    lines = shown(capsys, monkeypatch, name)
    assert max(map(len, lines)) <= 80
    assert set(find(name).settings) <= {line.split(" ")[0] for line in lines}


@pytest.mark.parametrize("words", [(), ("--tier", "mid")])
def test_no_condition_is_cut_off(words, capsys, monkeypatch) -> None:
    lines = shown(capsys, monkeypatch, "sprint2", *words)
    text = "".join(line[lines[1].index("when") :].strip() for line in lines)
    assert "attentionisseorcbamorcoordinateorgather_excite" in text.replace(" ", "")
    assert "headisadditive_residual" in text.replace(" ", "")


@pytest.mark.parametrize("tier", [(), ("--tier", "tiny"), ("--tier", "large")])
@pytest.mark.parametrize("name", NAMES)
def test_no_word_is_broken_but_where_its_parts_end(name, tier, capsys, monkeypatch) -> None:
    space = find(name) if not tier else at_tier(find(name), TIERS[tier[1]])
    whole = set()
    for setting, dim in space.settings.items():
        if isinstance(dim, Dimension):
            texts = (kind(dim), values(dim), short(dim.default), "; ".join(conditions(space, dim)))
            whole |= {setting, *" ".join(texts).split()}
        else:
            whole |= {setting, short(dim), "fixed"}
    parts = {
        word[start:end]
        for word in whole
        for start, end in combinations([0, *(m.end() for m in PARTS.finditer(word)), len(word)], 2)
    }
    lines = shown(capsys, monkeypatch, name, *tier)[2:]
    table = takewhile(lambda line: line.strip(), lines)
    assert set(" ".join(table).split()) <= parts


def test_a_long_name_is_broken_by_hand() -> None:
    assert breakable("none, distribution_matching", 18) == "none, distribution_ matching"
    assert breakable("vit_small.augreg_in1k", 9) == "vit_ small. augreg_ in1k"
    assert breakable("abcdefghij", 4) == "abcdefghij"  # without parts: the table folds it
    assert breakable("balanced_softmax", 16) == "balanced_softmax"


def test_a_row_says_kind_range_default_and_condition(capsys, monkeypatch) -> None:
    lines = shown(capsys, monkeypatch, "sprint2")
    row = next(line for line in lines if line.startswith("au_weight"))
    assert row.split() == ["au_weight", "log", "0.03", "…", "3", "0.3", "au_loss", "is", "set"]
    row = next(line for line in lines if line.startswith("warmup_epochs"))
    assert row.split() == ["warmup_epochs", "fixed", "1"]


def test_anchors_follow_the_table(capsys, monkeypatch) -> None:
    lines = shown(capsys, monkeypatch, "sprint2")
    at = next(i for i, line in enumerate(lines) if line.strip() == "tried first")
    assert "au_loss none, loss balanced_softmax" in " ".join(lines[at:])
    assert "tried first" not in "".join(shown(capsys, monkeypatch, "smoke"))


def test_a_tier_shows_its_networks(capsys, monkeypatch) -> None:
    assert "hsemotion_b0" in "".join(shown(capsys, monkeypatch, "sprint2", "--tier", "mid"))


@pytest.mark.parametrize("name", NAMES)
def test_json_holds_everything(name, capsys) -> None:
    main([name, "--json"])
    data = json.loads(capsys.readouterr().out)
    space = find(name)
    assert data["space"] == name
    assert [s["name"] for s in data["settings"]] == list(space.settings)
    assert data["anchors"] == space.anchors
    for setting in data["settings"]:
        dim = space.settings[setting["name"]]
        if setting["kind"] == "fixed":
            assert setting["default"] == dim
        else:
            ends = setting.get("options") or [setting["low"], setting["high"]]
            assert (tuple(ends), setting["default"]) == (dim.ends(), dim.default)
            assert {n: tuple(v) for n, v in setting["when"].items()} == dim.when


def test_a_belief_is_shown() -> None:
    from spaces.space import Space

    space = Space("s", {"lr": Uniform(0.0, 1.0, 0.5, confidence=0.3)})
    assert as_json(space)["settings"][0]["confidence"] == 0.3


def test_kinds_of_dimensions() -> None:
    dims = (
        Choice((1, 2), 1),
        IntRange(1, 9, 2),
        IntRange(1, 9, 2, log=True),
        Uniform(0, 1, 0),
        LogUniform(1, 2, 1),
    )
    assert [kind(dim) for dim in dims] == ["choice", "int", "int log", "real", "log"]


def test_a_users_file_is_shown(tmp_path, capsys, monkeypatch) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from spaces.space import Choice, Space\n"
        "SPACE = Space('mine', {'lr': Choice((0.1, 0.2), 0.1)}, {'fast': {'lr': 0.2}})\n"
    )
    lines = shown(capsys, monkeypatch, str(path))
    assert lines[0].strip() == "space mine"
    assert any(line.split() == ["fast", "lr", "0.2"] for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sprnt2"], "Did you mean 'sprint2'?"),
        (["absent.py"], "no space file at 'absent.py'"),
        ([], "required: space"),
        (["smoke", "--tier", "huge"], "invalid choice: 'huge'"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(words, message) -> None:
    command = [sys.executable, "-m", "spaces.show", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
