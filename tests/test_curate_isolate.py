"""A hang, a crash and an error in the child cost one call; the next one works."""

from __future__ import annotations

import os
import signal
import time

import pytest

from curate.isolate import ChildFailed, Isolated


@pytest.fixture
def child():
    isolated = Isolated(memory_gib=4)
    yield isolated
    isolated.close()


def test_hang_is_killed_at_the_deadline(child: Isolated) -> None:
    began = time.monotonic()
    with pytest.raises(ChildFailed, match="deadline of 1 s"):
        child.call("time:sleep", 60, deadline_s=1.0)
    assert time.monotonic() - began < 10
    assert child.call("math:sqrt", 4.0, deadline_s=20) == 2.0


def test_crash_in_native_code_is_one_failed_call(child: Isolated) -> None:
    with pytest.raises(ChildFailed, match="signal 11"):
        child.call("signal:raise_signal", signal.SIGSEGV, deadline_s=20)
    assert child.call("os:getpid", deadline_s=20) != os.getpid()


def test_memory_is_capped(child: Isolated) -> None:
    with pytest.raises(MemoryError):
        child.call("builtins:bytearray", 8 << 30, deadline_s=20)
    assert child.call("math:sqrt", 9.0, deadline_s=20) == 3.0


def test_exceptions_come_back_with_their_trace(child: Isolated) -> None:
    with pytest.raises(ValueError, match=r"math domain|nonnegative") as caught:
        child.call("math:sqrt", -1.0, deadline_s=20)
    assert any("Traceback" in note for note in caught.value.__notes__)


def test_child_is_recycled() -> None:
    isolated = Isolated(recycle=2)
    try:
        pids = [isolated.call("os:getpid", deadline_s=20) for _ in range(4)]
    finally:
        isolated.close()
    assert pids[0] == pids[1]
    assert pids[2] == pids[3]
    assert pids[0] != pids[2]
