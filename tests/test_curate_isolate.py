"""A hang, a crash and an error in the child cost one call; the next one works; no child outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curate.isolate import ChildDied, Isolated, TooMuchMemory, TooSlow

SLOW_S = 30.0  # for what takes no time but shares its processor


@pytest.fixture
def child():
    isolated = Isolated(memory_gib=4)
    yield isolated
    isolated.close()


def test_hang_is_killed_at_the_deadline(child: Isolated) -> None:
    began = time.monotonic()
    with pytest.raises(TooSlow, match="deadline of 1 s"):
        child.call("time:sleep", 60, deadline_s=1.0)
    assert time.monotonic() - began < 10
    assert child.call("math:sqrt", 4.0, deadline_s=SLOW_S) == 2.0


def test_crash_in_native_code_is_one_failed_call(child: Isolated) -> None:
    with pytest.raises(ChildDied, match="signal 11"):
        child.call("signal:raise_signal", signal.SIGSEGV, deadline_s=SLOW_S)
    assert child.call("os:getpid", deadline_s=SLOW_S) != os.getpid()


def test_memory_held_above_the_cap_is_killed() -> None:
    isolated = Isolated(memory_gib=0.25)
    try:
        with pytest.raises(TooMuchMemory, match=r"GiB held, above the cap of 0.25 GiB; killed"):
            # Grows in small steps to 1 GiB, a piece at a time, then would hang for a minute.
            isolated.call("builtins:exec", _GROW, {}, deadline_s=SLOW_S)
        assert isolated.call("math:sqrt", 9.0, deadline_s=SLOW_S) == 3.0
    finally:
        isolated.close()


_GROW = """
import time
held = []
for _ in range(64):
    held.append(bytearray(b"x") * (16 << 20))
    time.sleep(0.01)
time.sleep(60)
"""


def test_one_allocation_far_above_the_cap_is_an_error(child: Isolated) -> None:
    with pytest.raises(MemoryError):
        child.call("builtins:bytearray", 16 << 30, deadline_s=SLOW_S)
    assert child.call("math:sqrt", 9.0, deadline_s=SLOW_S) == 3.0


def test_reserved_address_space_is_no_memory(child: Isolated) -> None:
    """As torch and CUDA reserve it: 64 GiB mapped, nothing held."""
    reserve = "import mmap\nm = mmap.mmap(-1, 64 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0)"
    child.call("builtins:exec", reserve, {}, deadline_s=SLOW_S)


def test_items_of_a_generator_come_as_they_are_made(child: Isolated) -> None:
    first, *_ = child.stream("os:walk", "/proc/self/attr", deadline_s=SLOW_S)
    assert first[0] == "/proc/self/attr"
    pid = child.pid
    assert list(child.stream("math:sqrt", 4.0, deadline_s=SLOW_S)) == [2.0]
    assert child.pid == pid


def test_stream_left_in_the_middle_leaves_nothing_behind(child: Isolated) -> None:
    stream = child.stream("os:walk", "/usr/lib", deadline_s=SLOW_S)
    assert next(stream)[0] == "/usr/lib"
    stream.close()
    assert child.call("math:sqrt", 9.0, deadline_s=SLOW_S) == 3.0


def test_exceptions_come_back_with_their_trace(child: Isolated) -> None:
    with pytest.raises(ValueError, match=r"math domain|nonnegative") as caught:
        child.call("math:sqrt", -1.0, deadline_s=SLOW_S)
    assert any("Traceback" in note for note in caught.value.__notes__)


def test_child_is_recycled() -> None:
    isolated = Isolated(recycle=2)
    try:
        pids = [isolated.call("os:getpid", deadline_s=SLOW_S) for _ in range(4)]
    finally:
        isolated.close()
    assert pids[0] == pids[1]
    assert pids[2] == pids[3]
    assert pids[0] != pids[2]


def test_settings_of_threads_and_devices_reach_the_child(
    monkeypatch: pytest.MonkeyPatch, child: Isolated
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert child.call("os:getenv", "OMP_NUM_THREADS", deadline_s=SLOW_S) == "3"


PARENT = """
import sys, threading
from curate.isolate import Isolated
child = Isolated()
# Started by a thread that ends, as Ray's workers do: the child must not end with the thread.
thread = threading.Thread(target=lambda: child.call("os:getpid", deadline_s=60))
thread.start()
thread.join()
assert child.call("math:sqrt", 4.0, deadline_s=60) == 2.0
print(child.pid, flush=True)
child.call(*{call}, deadline_s=600)
"""
# A match that backtracks for hours in C and never gives the interpreter lock away.
STUCK = ("re:match", "(a+)+$", "a" * 60 + "b")


@pytest.mark.parametrize("call", [("time:sleep", 600), STUCK])
def test_child_dies_with_its_parent_even_when_busy(call: tuple) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(call=call)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.3)  # let it get busy
    assert _alive(pid)
    parent.kill()
    parent.wait()
    until = time.monotonic() + SLOW_S
    while _alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_begins_while_cv2_is_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Then its folder leads sys.path; the `typing` in it is not Python's, and no Python begins with it."""
    folder = tmp_path / "cv2"
    (folder / "typing").mkdir(parents=True)
    (folder / "typing" / "__init__.py").write_text("raise ImportError('not this one')")
    monkeypatch.syspath_prepend(str(folder))
    child = Isolated()
    try:
        assert child.call("builtins:abs", -2, deadline_s=30) == 2
    finally:
        child.close()
