"""Run a function where it can be killed: a hang, a native crash or too much memory costs one call.

    child = Isolated(memory_gib=4)
    result = child.call("curate.analysis:analyse", path, source_id, config, deadline_s=120)

The child is a plain `python -m curate.isolate`, kept between calls and replaced after a death or `recycle`
calls (decoders leak). Arguments and results are pickled between these two processes of ours, never from data.
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
from typing import Any

_LENGTH = struct.Struct("<Q")


class ChildFailed(RuntimeError):
    """The call took too long, or the child died; the message says which."""


class Isolated:
    """A child process that calls functions for us, one at a time.

    Args:
        memory_gib: address space the child may use, in GiB.
        recycle: calls after which a fresh child takes over.
    """

    def __init__(self, *, memory_gib: float = 8.0, recycle: int = 200) -> None:
        self._memory_gib = memory_gib
        self._recycle = recycle
        self._calls = 0
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, function: str, *args: Any, deadline_s: float) -> Any:
        """The result of `module:function`(*args), or the exception it raised.

        Raises ChildFailed when no answer came within `deadline_s` seconds (the child is killed) or it died.
        """
        if self._calls >= self._recycle:
            self.close()
        process = self._process or self._start()
        self._calls += 1
        assert process.stdin is not None
        assert process.stdout is not None
        message = pickle.dumps((function, args))
        try:
            process.stdin.write(_LENGTH.pack(len(message)) + message)
            process.stdin.flush()
            until = time.monotonic() + deadline_s
            (length,) = _LENGTH.unpack(_read(process.stdout.fileno(), _LENGTH.size, until))
            ok, value = pickle.loads(_read(process.stdout.fileno(), length, until))
        except TimeoutError as error:
            self.close()
            raise ChildFailed(f"no result within the deadline of {deadline_s:.0f} s; killed") from error
        except (BrokenPipeError, EOFError) as error:
            code = process.wait()
            self._process = None
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise ChildFailed(
                f"the decoding process died ({how}): a crash in native code or out of memory"
            ) from error
        except BaseException:
            self.close()  # an interrupted call leaves an answer in the pipe that belongs to nobody
            raise
        if ok:
            return value
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
        self._process = None
        self._calls = 0

    def __del__(self) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "curate.isolate", str(self._memory_gib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        return self._process


def _read(descriptor: int, size: int, until: float) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise TimeoutError
        part = os.read(descriptor, min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _serve(memory_gib: float) -> None:
    """The child: read calls from standard input, answer on the original standard output."""
    import resource

    limit = int(memory_gib * (1 << 30))
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    while header := sys.stdin.buffer.read(_LENGTH.size):
        function, args = pickle.loads(sys.stdin.buffer.read(_LENGTH.unpack(header)[0]))
        module, name = function.split(":")
        try:
            answer = (True, getattr(importlib.import_module(module), name)(*args))
        except Exception as error:  # handed to the caller, who raises it
            answer = (False, (_portable(error), traceback.format_exc()))
        message = pickle.dumps(answer)
        answers.write(_LENGTH.pack(len(message)) + message)
        answers.flush()


def _portable(error: Exception) -> Exception:
    """The error itself if it survives pickling, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # exceptions of native libraries often do not
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    _serve(float(sys.argv[1]))
