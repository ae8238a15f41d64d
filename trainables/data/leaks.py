"""Pictures that stand where they must not: in two classes, or in two splits."""

from collections.abc import Sequence

from trainables.data import splits
from trainables.data.listing import Listing, Row, several


def contradictions(listing: Listing, digests: Sequence[str]) -> list[str]:
    """Images of equal content that the data set puts in different classes, a sentence each."""
    rows, names = listing.rows, listing.class_names
    return [
        f"'{rows[a].id}' and '{rows[b].id}' are the same image, labelled "
        f"'{names[rows[a].label]}' and '{names[rows[b].label]}': correct or remove one"
        for a, b in splits.exact_pairs(digests)
        if digests[a] and rows[a].label != rows[b].label
    ]


def across(
    rows: Sequence[Row], pairs: splits.Ints, split_of: Sequence[str | None], sign: str
) -> list[str]:
    """Pairs that stand in two splits, as "a (train) = b (test)"; the sign tells how alike."""
    return [
        f"{rows[a].id} ({split_of[a]}) {sign} {rows[b].id} ({split_of[b]})"
        for a, b in pairs
        if split_of[a] is not None and split_of[b] is not None and split_of[a] != split_of[b]
    ]


def notes(exact: Sequence[str], near: Sequence[str], joined: Sequence[str] = ()) -> list[str]:
    """What to say of pairs across official splits: copies are certain, likeness is not."""
    told = [
        (exact, "show the same picture"),
        (near, "look alike"),
        (joined, "are of one sequence"),
    ]
    return [
        f"{len(found)} pairs of images of two official splits {how}: {several(found)}."
        for found, how in told
        if found
    ]
