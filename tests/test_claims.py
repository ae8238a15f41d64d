"""One builder of an entry at a time, and what a killed one left."""

import errno
import fcntl
import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from small_data import class_folders, entries

from trainables.data import cache, claims
from trainables.data.cores import usable_cores

HERE = f"-{platform.node()}"
HELD = """
import sys
from pathlib import Path
from trainables.data import cache
def wait(*_):
    print("building", flush=True)
    sys.stdin.read()
    raise SystemExit("told to end")
cache.write = wait
cache.prepare(sys.argv[1], 16, cache_root=Path(sys.argv[2]))
"""


def left_in(root: Path, name: str, age: float = 0) -> Path:
    left = root / f"{claims.PREFIX}{name}"
    left.mkdir(parents=True)
    (left / "images.npy").write_bytes(b"pixels")
    os.utime(left, (left.stat().st_mtime - age,) * 2)
    return left


def test_the_folder_of_a_killed_builder_goes_and_the_entry_is_built(tmp_path):
    source, root = str(class_folders(tmp_path / "data")), tmp_path / "cache"
    command = [sys.executable, "-c", HELD, source, str(root)]
    builder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert builder.stdout is not None
    assert builder.stdout.readline() == b"building\n"
    (left,) = entries(root)
    assert [p.name for p in left.iterdir()] == ["images.npy"]
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    path = cache.prepare(source, 16, cache_root=root)
    assert entries(root) == [path]
    assert len(cache.load(path).train.ids) == 12


@pytest.mark.skipif(usable_cores() == 1, reason="one core needs no helpers")
def test_a_script_without_a_guard_ends_and_says_why(tmp_path):
    # its helpers import it anew, and would wait for the entry that it builds with their help
    script = tmp_path / "mine.py"
    said = f"cache.prepare('faces:300', 16, cache_root=Path({str(tmp_path / 'cache')!r}))"
    script.write_text(f"from pathlib import Path\nfrom trainables.data import cache\n{said}\n")
    command = [sys.executable, str(script)]
    env = {**os.environ, "PYTHONPATH": str(Path(claims.__file__).parents[2])}
    run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert run.returncode == 1
    assert "put what the script does under `if __name__" in run.stderr


def test_a_second_builder_waits_and_then_builds_nothing(tmp_path, caplog):
    order: list[str] = []
    began, may_end = threading.Event(), threading.Event()

    def first() -> None:
        with claims.building(tmp_path, "key") as folder:
            order.append("first")
            began.set()
            assert may_end.wait(60)
            folder.rename(tmp_path / "key")
            order.append("moved")

    def second() -> None:
        with claims.building(tmp_path, "key") as folder:
            order.append("second")
            assert list(folder.iterdir()) == []

    threads = [threading.Thread(target=work) for work in (first, second)]
    threads[0].start()
    assert began.wait(60)
    threads[1].start()
    while "waiting for it" not in caplog.text:  # said before it waits
        threads[1].join(0.01)
    assert order == ["first"]
    may_end.set()
    for thread in threads:
        thread.join(60)
    assert order == ["first", "moved", "second"]
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_what_is_left_in_the_folder_is_removed_and_so_is_the_folder_after_an_error(tmp_path):
    left_in(tmp_path, f"key{HERE}")
    with claims.building(tmp_path, "key") as folder:
        assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), claims.building(tmp_path, "key"):
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_folders_of_this_machine_go_at_once_those_of_others_after_a_day(tmp_path):
    kept = [left_in(tmp_path, "a-elsewhere"), left_in(tmp_path, f"held{HERE}")]
    for name, age in ((f"b{HERE}", 0), ("c-elsewhere", 2e5), (f"d{HERE}", 2e5)):
        left_in(tmp_path, name, age)
    held = os.open(kept[1], os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    claims.sweep(tmp_path)
    os.close(held)
    assert sorted(tmp_path.iterdir()) == kept


def test_a_disk_without_locks_gives_each_builder_a_folder_and_keeps_what_is_young(
    tmp_path, monkeypatch
):
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", none)
    with claims.building(tmp_path, "key") as one, claims.building(tmp_path, "key") as other:
        assert one != other
        claims.sweep(tmp_path)
        assert one.is_dir()
        assert other.is_dir()
    claims.sweep(tmp_path)
    assert not one.exists()
    assert not other.exists()
