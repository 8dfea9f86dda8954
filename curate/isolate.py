"""Run a function where it can be killed: a hang, a native crash or too much memory costs one call.

    child = Isolated(memory_gib=4)
    result = child.call("curate.probe:probe", path, deadline_s=60)
    for part in child.stream("curate.analysis:analyse_in_parts", path, source_id, config, deadline_s=120): ...

The child is a plain `python -m curate.isolate`, kept between calls and replaced after a death or `recycle`
calls (decoders leak). It dies with its parent, however the parent ends. Arguments and results are pickled
between these two processes of ours, never from data.
"""

from __future__ import annotations

import importlib
import os
import pickle
import select
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Generator, Iterator
from typing import Any

_LENGTH = struct.Struct("<Q")
_LOOK_EVERY_S = 0.2


class ChildFailed(RuntimeError):
    """The call gave no result; the message says why. Another try may succeed."""


class TooSlow(ChildFailed):
    """No result within the deadline."""


class TooMuchMemory(ChildFailed):
    """The child held more memory than its cap."""


class ChildDied(ChildFailed):
    """The child ended by itself or was killed by somebody else."""


class Isolated:
    """A child process that calls functions for us, one at a time.

    Args:
        memory_gib: resident memory the child may hold, in GiB; above it is killed.
        recycle: calls after which a fresh child takes over.
        threads: that the numerical libraries of the child use; None leaves it to them.
        nice: how far a child stands back where others want the same cores, 0 to 19.
    """

    def __init__(
        self,
        *,
        memory_gib: float = 8.0,
        recycle: int = 200,
        threads: int | None = None,
        nice: int = 0,
    ) -> None:
        self._memory_gib = memory_gib
        self._recycle = recycle
        self._threads = threads
        self._nice = nice
        self._calls = 0
        self._lifeline: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child, if there is one."""
        return self._process.pid if self._process else None

    def tell(self, function: str, *args: Any) -> None:
        """Have `module:function`(*args) called without an answer, so that the child gets ready while we do."""
        process = self._process or self._start()
        assert process.stdin is not None
        pickle.dump((function, args, False), process.stdin)
        process.stdin.flush()

    def call(self, function: str, *args: Any, deadline_s: float) -> Any:
        """The result of `module:function`(*args), or the exception it raised.

        Raises TooSlow when no answer came within `deadline_s` seconds, TooMuchMemory above the cap (the child
        is killed in both cases) and ChildDied when it ended; all are ChildFailed.
        """
        (result,) = self.stream(function, *args, deadline_s=deadline_s)
        return result

    def stream(self, function: str, *args: Any, deadline_s: float) -> Iterator[Any]:
        """The items of a generator `module:function`(*args) as they come, of any other function its result.

        Raises as `call` does; the deadline is for all items together.
        """
        if self._calls >= self._recycle:
            self.close()
        process = self._process or self._start()
        self._calls += 1
        assert process.stdin is not None
        assert process.stdout is not None
        until = time.monotonic() + deadline_s
        answered = False
        try:
            pickle.dump((function, args, True), process.stdin)
            process.stdin.flush()
            while True:
                (length,) = _LENGTH.unpack(self._read(process, _LENGTH.size, until))
                kind, value = pickle.loads(self._read(process, length, until))
                if kind != "item":
                    answered = True
                    break
                yield value
        except TimeoutError as error:
            raise TooSlow(f"no result within the deadline of {deadline_s:.0f} s; killed") from error
        except (BrokenPipeError, EOFError) as error:
            code = process.wait()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise ChildDied(
                f"the decoding process died ({how}): a crash in native code, or killed for memory by the system"
            ) from error
        finally:
            if not answered:
                self.close()  # dead, hanging, or left in the middle: its answers belong to nobody now
        if kind == "raised":
            raised, trace = value
            raised.add_note(trace)
            raise raised

    def close(self) -> None:
        """Kill the child, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        continue
        if self._lifeline is not None:
            os.close(self._lifeline)
        self._process = self._lifeline = None
        self._calls = 0

    def __del__(self) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        # While another thread imports cv2 its folder is on the path, whose `typing` no Python can begin with.
        paths = [path or os.getcwd() for path in sys.path if os.path.basename(path) != "cv2"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        # A thread that waits for others spins for a moment only: it would take the core that they could work on.
        environment.setdefault("GOMP_SPINCOUNT", "2000")
        if self._threads is not None:
            environment["OMP_NUM_THREADS"] = str(self._threads)
        theirs, self._lifeline = os.pipe()
        try:
            words = (self._memory_gib, theirs, self._nice)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "curate.isolate", *map(str, words)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(theirs,),
                env=environment,
            )
        finally:
            os.close(theirs)
        return self._process

    def _read(self, process: subprocess.Popen[bytes], size: int, until: float) -> bytes:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        parts = bytearray()
        while len(parts) < size:
            left_s = until - time.monotonic()
            ready, _, _ = select.select([descriptor], [], [], max(0.0, min(left_s, _LOOK_EVERY_S)))
            if ready:
                part = os.read(descriptor, min(size - len(parts), 1 << 20))
                if not part:
                    raise EOFError
                parts += part
                continue
            if left_s <= 0:
                raise TimeoutError
            held_gib = _resident_bytes(process.pid) / (1 << 30)
            if held_gib > self._memory_gib:
                raise TooMuchMemory(
                    f"{held_gib:.1f} GiB held, above the cap of {self._memory_gib:g} GiB; killed. "
                    "Raise memory_gib if the footage is that large."
                )
        return bytes(parts)


def _resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where /proc is absent or the process is gone."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _serve(memory_gib: float, lifeline: int, nice: int) -> None:
    """The child: read calls from standard input, answer on the original standard output."""
    import resource
    import signal

    _die_with_parent(lifeline)
    os.nice(nice)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    # The parent watches resident memory. One allocation far above the cap ends here, before it is touched.
    # Not RLIMIT_AS: torch and CUDA reserve many times what they use.
    limit = int((2 * memory_gib + 2) * (1 << 30))
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the answers

    def answer(kind: str, value: Any) -> None:
        message = pickle.dumps((kind, value))
        answers.write(_LENGTH.pack(len(message)))
        answers.write(message)
        answers.flush()

    while True:
        try:
            function, args, wanted = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        module, name = function.split(":")
        try:
            result = getattr(importlib.import_module(module), name)(*args)
            if not wanted:
                continue
            if isinstance(result, Generator):
                for item in result:
                    answer("item", item)
            else:
                answer("item", result)
            answer("end", None)
        except Exception as error:  # handed to the caller, who raises it
            if wanted:
                answer("raised", (_portable(error), traceback.format_exc()))


def _die_with_parent(lifeline: int) -> None:
    """Be killed by the kernel when the other end of this pipe closes, even while native code runs.

    Nothing is ever written to the pipe, so its only event is the end of the parent. (PR_SET_PDEATHSIG would
    fire already when the *thread* that started us ends, and Ray starts and ends threads.)
    """
    import fcntl
    import signal

    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    if hasattr(fcntl, "F_SETSIG"):  # Linux; elsewhere the default signal, SIGIO, ends a process too
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it ended before we could ask
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error itself if it survives pickling, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # exceptions of native libraries often do not
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    _serve(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
