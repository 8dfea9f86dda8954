"""Is this machine ready? One line per check: ok, warn or fail, with what to do.

    reelmill doctor
    reelmill doctor --folder /data        # where the datasets will lie: its disk is looked at

Exit code 1 only when something is missing that the road cannot do without.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30


@dataclass(frozen=True)
class DoctorConfig:
    """Check whether this machine is ready: packages, codecs, memory, disk, GPU.

    Attributes:
        folder: where datasets and runs will lie; the free space of its disk is checked.

    Example:
        reelmill doctor
    """

    folder: str = "."


@dataclass(frozen=True)
class Finding:
    """One check: what was found, and what to do if that is not well."""

    status: Literal["ok", "warn", "fail"]
    name: str
    told: str
    remedy: str = ""

    def __str__(self) -> str:
        first = f"{self.status:<6}{self.name:<16}"
        width = max(60, shutil.get_terminal_size((110, 24)).columns)
        # Paths stay whole, to be copied.
        wrap = partial(textwrap.wrap, width=width, break_on_hyphens=False, break_long_words=False)
        lines = wrap(self.told, initial_indent=first, subsequent_indent=" " * 22)
        if self.remedy:
            lines += wrap(self.remedy, initial_indent=" " * 22 + "-> ", subsequent_indent=" " * 25)
        return "\n".join(lines)


def doctor(config: DoctorConfig) -> int:
    """Print every finding as it is made; 1 if one of them is `fail`, else 0."""
    failed = warned = 0
    for finding in examine(config):
        print(finding, flush=True)
        failed += finding.status == "fail"
        warned += finding.status == "warn"
    print(f"\n{failed} failed, {warned} to note. " + ("Mend the failures first." if failed else "Ready."))
    return 1 if failed else 0


def examine(config: DoctorConfig) -> Iterator[Finding]:
    """Every finding, cheapest first."""
    yield python_version(sys.version_info[:3])
    yield cores(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    yield memory(memory_bytes())
    yield disk(Path(config.folder))
    yield shared_memory(Path("/dev/shm"))
    yield from packages(requirements())
    yield torch_pair()
    yield gpu()
    yield h264()
    yield weights(ROOT / "pipelines" / "demo" / "weights")


def python_version(version: tuple[int, int, int]) -> Finding:
    told = ".".join(map(str, version))
    if version < (3, 11, 0):
        return Finding("fail", "python", told, "Reelmill needs Python 3.11 or newer.")
    return Finding("ok", "python", told)


def cores(count: int) -> Finding:
    remedy = "The demo is made for two cores; one is slow." if count < 2 else ""
    return Finding("warn" if count < 2 else "ok", "cores", str(count), remedy)


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or less where a container limits it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(limit)
        text = path.read_text().strip() if path.is_file() else ""
        if text.isdigit():
            total = min(total, int(text))
    return total


def memory(size: int) -> Finding:
    remedy = (
        "Ray, PyTorch and the decoders want 4 GiB; `--engine local` takes less." if size < 4 * GIB else ""
    )
    return Finding("warn" if remedy else "ok", "memory", f"{size / GIB:.1f} GiB", remedy)


def disk(folder: Path) -> Finding:
    if not folder.is_dir():
        return Finding("fail", "disk", f"there is no folder {folder}", "Create it, or give another --folder.")
    if not os.access(folder, os.W_OK):
        return Finding("fail", "disk", f"{folder} cannot be written", "Give a --folder that you own.")
    free = shutil.disk_usage(folder).free
    remedy = "The demo takes about 2 GiB." if free < 5 * GIB else ""
    return Finding(
        "warn" if remedy else "ok", "disk", f"{free / GIB:.0f} GiB free in {folder.resolve()}", remedy
    )


def shared_memory(folder: Path) -> Finding:
    """Ray keeps its objects in shared memory and falls back to a slow temporary folder without it."""
    if not folder.is_dir():
        return Finding("ok", "shared memory", "none on this system; Ray uses temporary files")
    size = shutil.disk_usage(folder).total
    small = size < GIB
    remedy = (
        "Ray will be slow; start the container with --shm-size=2g, or use `--engine local`." if small else ""
    )
    return Finding("warn" if small else "ok", "shared memory", f"{size / GIB:.1f} GiB in {folder}", remedy)


def requirements() -> list[str]:
    """What Reelmill depends on, from the checkout, or from the installed distribution where there is none."""
    project = ROOT / "pyproject.toml"
    if project.is_file():
        import tomllib

        found: list[str] = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
        return found
    return [text for text in importlib.metadata.requires("reelmill") or [] if "extra ==" not in text]


def packages(wanted: list[str]) -> Iterator[Finding]:
    """A line per missing or too old package, one line for all the others."""
    from packaging.requirements import Requirement

    fine = []
    install = "Run `make install`, or `pip install -c constraints.txt -e .`."
    for requirement in map(Requirement, wanted):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("fail", requirement.name, "not installed", install)
            continue
        if requirement.specifier.contains(version, prereleases=True):
            fine.append(f"{requirement.name} {version}")
        else:
            yield Finding(
                "fail", requirement.name, f"{version}, but {requirement.specifier} is needed", install
            )
    if fine:
        yield Finding("ok", "packages", ", ".join(fine))


def torch_pair() -> Finding:
    """torch and torchvision must come from one release: their compiled parts meet at import."""
    versions = {}
    for name in ("torch", "torchvision"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return Finding(
                "fail", "torch pair", f"{name} is not installed", "Install both from one registry."
            )
    told = f"torch {versions['torch']} with torchvision {versions['torchvision']}"
    try:
        import torchvision  # noqa: F401  (the import is the check: it fails where the two do not fit)
    except (ImportError, RuntimeError, OSError) as error:
        first_line = str(error).partition("\n")[0]
        return Finding("fail", "torch pair", f"{told}: {first_line}", "Install both again from one registry.")
    return Finding("ok", "torch pair", told)


def gpu() -> Finding:
    try:
        import torch
    except (ImportError, RuntimeError, OSError) as error:
        return Finding("fail", "gpu", f"torch cannot be imported: {error}", "Install torch again.")
    if not torch.cuda.is_available():
        return Finding("ok", "gpu", "none: everything runs on the CPU, at tiny sizes")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("ok", "gpu", ", ".join(names))


def h264() -> Finding:
    """Encode and decode one second of H.264 in memory, as `shard` and `sample` do."""
    try:
        import av
        import numpy as np

        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=8)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            for level in range(8):
                picture = np.full((64, 64, 3), 30 * level, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        with av.open(io.BytesIO(file.getvalue()), "r") as written:
            frames = len(list(written.decode(video=0)))
    except (ImportError, ValueError, OSError) as error:  # av.error.FFmpegError is an OSError or ValueError
        remedy = "Install PyAV from its wheel (`pip install --only-binary :all: av`): it brings libx264."
        return Finding("fail", "h264", f"cannot be written: {error}", remedy)
    if frames != 8:
        return Finding("fail", "h264", f"wrote 8 frames and read {frames}", "Install PyAV from its wheel.")
    return Finding("ok", "h264", f"written and read by PyAV {av.__version__}'s own libraries")


def weights(folder: Path) -> Finding:
    """The tiny models that ship with the code; without them the demo cannot run."""
    found = {path.parent.name: path.stat().st_size for path in folder.glob("*/*.safetensors")}
    missing = [name for name in ("coca", "vae") if name not in found]
    if missing:
        remedy = "The checkout is incomplete; `reelmill train-captioner` and `reelmill train-vae` make them."
        return Finding("warn", "demo weights", f"{' and '.join(missing)} missing in {folder}", remedy)
    return Finding("ok", "demo weights", ", ".join(f"{k} {v / 1e6:.1f} MB" for k, v in sorted(found.items())))


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(DoctorConfig, doctor, argv, name="doctor")


if __name__ == "__main__":
    raise SystemExit(main())
