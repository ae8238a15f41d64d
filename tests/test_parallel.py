"""Work on all cores: in order, by processes too; what goes wrong is told, and nothing goes on."""

import os
import signal
from collections.abc import Sequence

import numpy as np
import pytest
from small_data import draw

from trainables.data import decoding, images, parallel
from trainables.data.pixels import PixelFile


def doubled(items: Sequence[int]) -> list[int]:
    return [2 * item for item in items]


def own_ids(items: Sequence[int]) -> int:
    return os.getpid()


def killed(items: Sequence[int]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refused(items: Sequence[int]) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("few", [0, 1000])
def test_results_come_in_order_and_progress_ends_at_the_end(few):
    told: list[tuple[str, int, int]] = []
    found = parallel.in_chunks(
        doubled, list(range(150)), "double", lambda *step: told.append(step), few=few, workers=2
    )
    assert [x for some in found for x in some] == list(range(0, 300, 2))
    assert told == [("double", 64, 150), ("double", 128, 150), ("double", 150, 150)]


def test_many_items_go_to_other_processes_and_few_stay_here():
    many = list(parallel.in_chunks(own_ids, range(200), "", few=0, workers=2))
    assert os.getpid() not in many
    assert set(parallel.in_chunks(own_ids, range(200), "", workers=2)) == {os.getpid()}
    assert set(parallel.in_chunks(own_ids, range(200), "", few=0, workers=1)) == {os.getpid()}


def test_a_killed_process_is_told():
    with pytest.raises(ChildProcessError, match="should 'decode' died: where memory is short"):
        list(parallel.in_chunks(killed, range(10), "decode", few=0, workers=2))


def test_an_error_of_a_process_keeps_its_number():
    with pytest.raises(OSError, match="No space") as error:
        list(parallel.in_chunks(refused, range(10), "decode", few=0, workers=2))
    assert error.value.errno == 28


def test_what_has_not_begun_does_not_begin_after_ctrl_c():
    begun: list[int] = []

    def work(items: Sequence[int]) -> int:
        begun.extend(items)
        return len(items)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(parallel.in_chunks(work, range(64_000), "", interrupt, few=10**6, workers=1))
    assert len(begun) < 64_000


def test_processes_decode_what_threads_decode_and_name_what_they_cannot(tmp_path):
    paths = [draw(tmp_path / f"{k}.png", k) for k in range(70)]
    paths[66].write_bytes(b"")
    (paths[3]).write_bytes(paths[4].read_bytes()[:-30])
    found, places = [], np.arange(70)[::-1]
    for few in (0, 1000):
        into = PixelFile.create(tmp_path / f"{few}.npy", 70, 16)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parallel.in_chunks, "__defaults__", (None, few, 2))
            found.append(decoding.decode(paths, places, into, "decode", None))
    one, other = found
    assert one.faults == other.faults
    assert (sorted(one.faults), one.faults[66]) == ([3, 66], "empty file")
    np.testing.assert_array_equal(one.hashes, other.hashes)
    np.testing.assert_array_equal(one.thumbs, other.thumbs)
    assert (tmp_path / "0.npy").read_bytes() == (tmp_path / "1000.npy").read_bytes()
    pixels = np.load(tmp_path / "0.npy")[places]
    assert pixels.shape == (70, 3, 16, 16)
    assert [k for k in range(70) if not pixels[k].any()] == [3, 66]  # nothing could be read
    for k in (0, 69):
        np.testing.assert_array_equal(pixels[k], images.decode(paths[k].read_bytes(), 16))
