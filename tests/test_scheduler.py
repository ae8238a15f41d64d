"""Who keeps a worker that has nothing to do: Tune's own cache of workers, on a clock by hand."""

from types import SimpleNamespace

import pytest
from ray.tune.utils.object_cache import _ObjectCache

from search import scheduler
from search.scheduler import KEEP_SECONDS, TuneScheduler

WORKERS = 3


@pytest.fixture
def tune(monkeypatch):
    """A scheduler, Tune's cache, and a clock; no trial waits for a worker."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(scheduler.time, "monotonic", lambda: clock.now)
    search = SimpleNamespace(is_over=False)
    found = TuneScheduler(SimpleNamespace(search=search, nodes=SimpleNamespace(workers=WORKERS)))
    cache = _ObjectCache(may_keep_one=True)
    found.controller = SimpleNamespace(_actor_cache=cache)
    found.on_trial_add(None, SimpleNamespace(trial_id="t", placement_group_factory="group"))
    found._keep_workers()
    return found, cache, clock


def let_go(cache):
    """The workers that Tune ends at the end of its turn."""
    return list(cache.flush_cached_objects())


def test_workers_that_fall_idle_together_are_all_kept_for_a_while(tune):
    found, cache, clock = tune
    assert [cache.cache_object("group", worker) for worker in "abc"] == [True] * 3
    for _ in range(3):
        found._keep_workers()
        assert let_go(cache) == []
        clock.now += KEEP_SECONDS / 3
    clock.now += 1
    found._keep_workers()
    assert let_go(cache) == ["a", "b"]  # one stays


def test_a_worker_that_is_used_in_between_starts_the_while_anew(tune):
    found, cache, clock = tune
    for _ in range(3):
        assert cache.cache_object("group", "a")
        found._keep_workers()
        clock.now += 0.6 * KEEP_SECONDS
        assert cache.pop_cached_object("group") == "a"
        found._keep_workers()
    assert found.kept == WORKERS


def test_nothing_is_kept_once_the_search_is_over(tune):
    found, cache, _ = tune
    assert cache.cache_object("group", "a")
    found.searcher.search.is_over = True
    found._keep_workers()
    assert cache.total_max_objects == 0  # Tune then ends them all


def test_as_many_are_kept_as_there_is_room_for(tune):
    found, cache, _ = tune
    found.searcher.nodes.workers = 1
    found._keep_workers()
    assert [cache.cache_object("group", worker) for worker in "ab"] == [True, False]
