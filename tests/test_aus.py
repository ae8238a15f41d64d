"""AU strings: every kind of token that real files hold (reference/datasets.md 6.4)."""

import logging
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data import aus
from trainables.data.aus import Coding, Policy, Unit, encode, parse


@pytest.mark.parametrize(
    ("text", "units", "unknown"),
    [
        ("1+4+25", [Unit(1), Unit(4), Unit(25)], []),
        ("26+26", [Unit(26), Unit(26)], []),
        ("20+16", [Unit(20), Unit(16)], []),
        ("L12+24", [Unit(12, "L"), Unit(24)], []),
        ("B22", [Unit(22, "B")], []),
        ("BL18", [Unit(18, "BL")], []),
        ("RB18", [Unit(18, "BR")], []),
        ("AD19", [Unit(19)], []),
        ("t23", [Unit(23, "T")], []),
        ("L12L", [Unit(12, "L")], []),
        ("12R", [Unit(12, "R")], []),
        ("LR12", [Unit(12)], []),
        ("1+4  ", [Unit(1), Unit(4)], []),
        ("1+4\r", [Unit(1), Unit(4)], []),
        ("AU1 AU2 AU4", [Unit(1), Unit(2), Unit(4)], []),
        ("au01, au02; 4|5", [Unit(1), Unit(2), Unit(4), Unit(5)], []),
        ("12A+12e+AU6C", [Unit(12, "", "A"), Unit(12, "", "E"), Unit(6, "", "C")], []),
        ("AU12_c", [], ["AU12_c"]),
        ("AU12_c+4", [Unit(4)], ["AU12_c"]),
        ("0+12", [Unit(12)], ["0"]),
        ("123", [], ["123"]),
        ("happy", [], ["happy"]),
    ],
)
def test_tokens_are_read_as_the_data_set_means_them(text, units, unknown):
    coding = parse(text)
    assert (list(coding.units), list(coding.unknown)) == (units, unknown)
    assert not coding.is_null
    assert not coding.is_unlabelled


@pytest.mark.parametrize("text", ["null", " NULL ", "None", "nan", "", "0"])
def test_null_is_a_coding_without_aus(text):
    assert parse(text) == Coding(is_null=True)


def test_an_image_nobody_coded_is_not_null():
    assert parse(None) == Coding(is_unlabelled=True)


def test_unlabelled_is_masked_and_not_zero():
    texts = ["12+4", "null", None, "happy", "L12"]
    rows = encode([parse(t) for t in texts], ("AU4", "AU12"))
    assert rows.dtype == np.int8
    assert rows.tolist() == [[1, 1], [-1, -1], [-1, -1], [-1, -1], [0, 1]]


def test_null_counts_as_no_au_only_when_asked():
    rows = encode([parse(t) for t in ["null", None, "happy"]], ("AU4",), null="zeros")
    assert rows.tolist() == [[0], [-1], [-1]]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"null": "drop"}, "unknown null policy 'drop'; known: mask, zeros"),
        ({"sides": "split"}, "unknown side policy 'split'; known: fold, keep"),
        ({"vocabulary": "plan19"}, "unknown AU vocabulary 'plan19'"),
    ],
)
def test_an_unknown_policy_names_the_known(asked, message):
    with pytest.raises(ValueError, match=message):
        Policy(**asked)


# --- sides ---------------------------------------------------------------------------------------

SIDED = ("AU4", "AUL12", "AUR12")


def test_sides_that_are_kept_are_targets_of_their_half_of_the_face():
    texts = ["12+4", "L12", "R12A", "L12+R12", "B12", "BL12", "4", "null"]
    rows = encode([parse(t) for t in texts], SIDED)
    assert rows.tolist() == [
        [1, 1, 1], [0, 1, 0], [0, 0, 1], [0, 1, 1], [0, 1, 1], [0, 1, 0], [1, 0, 0], [-1, -1, -1],
    ]  # fmt: skip
    folded = encode([parse(t) for t in texts], ("AU4", "AU12"))
    known = rows[:, 0] >= 0
    assert (rows[known, 1:].max(1) == folded[known, 1]).all()


def test_only_aus_that_are_one_sided_often_enough_have_sides():
    codings = [parse(t) for t in ["L12+4", "R12+4", "12+R4", "L6+R6+12", "L6+R6"]]
    assert aus.keep_sides(("AU4", "AU6", "AU12"), codings) == ("AU4", "AU6", "AUL12", "AUR12")
    assert aus.keep_sides(("AU4",), codings * 2) == ("AUL4", "AUR4")


def test_a_mirror_swaps_left_and_right():
    assert aus.mirror(("AU1", "AUL12", "AUR12", "AU25")) == [0, 2, 1, 3]
    assert aus.mirror(("AU1", "AU12")) is None


def test_sides_without_a_positive_image_are_told():
    assert aus.unseen([parse("L12")], ("AUL12", "AUR12")) == ("AUR12",)


def test_vocabulary_holds_the_aus_with_enough_positives_by_number():
    codings = [parse("L12+4")] * 3 + [parse("12+12+9")] + [parse("25")] * 2
    assert aus.vocabulary(codings, min_support=2) == ("AU4", "AU12", "AU25")
    assert aus.vocabulary(codings, min_support=4) == ("AU12",)
    assert aus.support(codings)["AU12"] == 4  # an AU named twice in one image counts once


@pytest.mark.parametrize(("images", "least"), [(10, 2), (180, 3), (999, 19), (2709, 20)])
def test_support_asked_for_scales_with_a_small_set(images, least):
    assert aus.default_support(images) == least


def test_unlabelled_images_do_not_raise_the_support_asked_for():
    codings = [parse("12")] * 3 + [parse(None)] * 1000
    assert aus.vocabulary(codings) == ("AU12",)


@pytest.mark.parametrize(
    ("choice", "names"),
    [("auto", None), ("none", ()), ("12,1", ("AU1", "AU12")), ("plan18", aus.PLAN_18)],
)
def test_vocabulary_by_name(choice, names):
    assert aus.named_vocabulary(choice) == names


@pytest.mark.parametrize("choice", ["plan19", "", "0", "AU12_c", "null"])
def test_unknown_vocabulary_lists_the_known(choice):
    with pytest.raises(ValueError, match="known: auto, none, plan18"):
        aus.named_vocabulary(choice)


def test_plan_18_is_the_list_of_the_plan():
    assert [int(name[2:]) for name in aus.PLAN_18] == [
        1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 17, 20, 23, 24, 25, 26, 43, 45
    ]  # fmt: skip


def test_an_au_without_a_positive_image_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        assert aus.unseen([parse("12")], ("AU12", "AU45")) == ("AU45",)
    assert "AU45" in caplog.text


def test_four_readable_lines_of_five_will_do():
    codings = [parse(t) for t in ["1", "null", "L2", "4+foo", "foo"]]
    assert [c.is_readable for c in codings] == [True, True, True, True, False]
    aus.check_readable(codings)  # raises below 80 %


def test_fewer_readable_lines_raise_and_name_the_tokens():
    codings = [parse(t) for t in ["1", "null", "L2", "foo", "foo", None, None]]
    with pytest.raises(ValueError, match="only 3 of 5 AU lines.*'foo'"):
        aus.check_readable(codings)


def test_files_without_lines_are_not_unreadable():
    nobody = parse(None)
    assert nobody.is_unlabelled
    aus.check_readable([nobody])  # raises where lines make no sense


UNITS = st.builds(
    Unit,
    st.integers(1, 99),
    st.sampled_from(["", "L", "R", "T", "B", "BL", "BR", "LT", "RT"]),
    st.sampled_from(["", "A", "B", "C", "D", "E"]),
)


@given(st.sets(UNITS, min_size=1))
def test_a_coding_survives_being_written_and_read(units):
    coding = Coding(tuple(sorted(units)))
    assert parse(aus.format_coding(coding)) == coding


@given(st.text("0123456789LRTBADuabcULE+, ;|_", max_size=20))
def test_normalising_twice_changes_nothing(text):
    once = aus.normalise(text)
    assert aus.normalise(once) == once
    assert set(parse(once).units) == set(parse(text).units)
    assert set(parse(once).unknown) == set(parse(text).unknown)


@given(st.text())
def test_any_text_is_read_and_nothing_of_it_lost(text):
    coding = parse(text)
    tokens = [t for t in re.split(r"[+,;\s|]+", text) if t]
    assert coding.is_null or len(coding.units) + len(coding.unknown) == len(tokens)


def test_canonical_form_by_hand():
    assert aus.normalise("26+AU04 L12L+26+AD19+AU12_c") == "4+L12+19+26+AU12_c"
    assert aus.normalise("  ") == "null"
    assert aus.format_coding(parse(None)) is None
