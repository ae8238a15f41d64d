"""Files of arrays, read as numpy reads them."""

import io
from typing import Any

import numpy as np
import pytest

from trainables import npz


def packed(seed: int, rows: int = 40, **more: Any) -> bytes:
    rng = np.random.default_rng(seed)
    data = io.BytesIO()
    np.savez(
        data,
        ids=np.array([f"val_{n:04}.jpg" for n in range(rows)]),
        probs=rng.random((rows, 3)).astype(np.float16),
        none=np.zeros((rows, 0), np.float16),
        **more,
    )
    return data.getvalue()


def plain(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_many_files_of_any_layout_are_read_as_numpy_reads_them() -> None:
    files = [packed(seed, rows) for seed in range(4) for rows in (40, 41)]
    files += [packed(9, 40, more=np.arange(6).reshape(2, 3).T), packed(8, 41, more=np.arange(3))]
    for data in [*files, *files]:
        wanted, found = plain(data), npz.read(data)
        assert list(found) == list(wanted)
        for name, array in wanted.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


def test_the_second_file_of_a_layout_is_not_opened_by_numpy(monkeypatch) -> None:  # type: ignore[no-untyped-def]  # pytest's
    npz.read(packed(0))
    monkeypatch.setattr(np, "load", None)
    assert npz.read(packed(1))["probs"].shape == (40, 3)


@pytest.mark.parametrize("spoil", ["flipped", "short", "renamed"])
def test_a_damaged_file_of_a_known_layout_is_refused_as_numpy_refuses_it(spoil: str) -> None:
    npz.read(packed(0))
    data = bytearray(packed(1))
    if spoil == "flipped":
        data[data.index(b"probs.npy") + 300] ^= 1
    if spoil == "short":
        del data[-400:]
    if spoil == "renamed":
        at = data.index(b"probs.npy")
        data[at : at + 5] = b"prons"
    with pytest.raises(Exception, match=r"CRC|zip|differ"):
        npz.read(bytes(data))


def test_names_of_images_are_shared_and_never_mixed_up() -> None:
    one, other = np.array(["a", "b"]), np.array(["a", "c"])
    assert npz.names(one) is npz.names(one.copy())
    assert npz.names(other) == ("a", "c")
