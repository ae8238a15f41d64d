"""Threads of BLAS: one for small matrices, as many as a trial has CPUs in its worker."""

import subprocess
import sys

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from trainables.blas import one_thread


def threads_of_blas():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_one_thread_is_one_and_gives_back_what_there_was():
    square = np.ones((50, 50))
    with threadpool_limits(2, user_api="blas"):
        with one_thread():
            assert threads_of_blas() == {1}
            assert (square @ square)[0, 0] == 50
        assert threads_of_blas() == {2}


def test_it_decorates_functions():
    @one_thread()
    def seen():
        return threads_of_blas()

    with threadpool_limits(2, user_api="blas"):
        assert [seen(), seen()] == [{1}, {1}]
        assert threads_of_blas() == {2}


def test_a_library_that_comes_later_is_limited_too():
    said = """
import numpy
from threadpoolctl import threadpool_info, threadpool_limits
from trainables.blas import one_thread
with one_thread():
    pass
import scipy.linalg
threadpool_limits(2, user_api="blas")
with one_thread():
    print(*(p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"))
"""
    run = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) == {"1"}


def test_a_worker_computes_with_as_many_as_its_trial_has_cpus():
    said = """
import numpy
from search.gang import use_threads
from threadpoolctl import threadpool_info
for cpus in (2, 0.5):
    use_threads(cpus)
    print([p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"][0])
import scipy.linalg  # brings a library of its own, later
print({p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"})
"""
    run = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["2", "1", "{1}"]
