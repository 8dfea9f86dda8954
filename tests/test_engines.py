"""The same tables from Ray Data and from one process; and a job submitted to a running cluster."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from conftest import moving_square, write_video

from curate.errors import BadInput
from pipelines.curate import main as curate
from pipelines.engine import RayConfig, start_ray
from pipelines.recaption import main as recaption
from pipelines.shard import main as shard

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for i in range(6):
        shots = [moving_square(30 + 5 * i, seed=i), 255 - moving_square(40, seed=i + 50, step=3)]
        write_video(folder / f"film {i}.mp4", np.concatenate(shots))
    (folder / "film 1.txt").write_text("a large white square moves right over a city street")
    (folder / "bad.mp4").write_text("no video")
    shutil.copy(folder / "film 2.mp4", folder / "copy of film 2.mp4")
    return folder


def tables(dataset: Path) -> dict[str, bytes]:
    names = ("sources", "clips", "decisions", "shards")
    return {
        str(path.relative_to(dataset)): path.read_bytes()
        for name in names
        for path in (dataset / name).rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_ray_and_local_give_the_same_tables(films: Path, tmp_path: Path, ray_cluster: None) -> None:
    for engine in ("local", "ray"):
        dataset = str(tmp_path / engine)
        assert curate(["--input", str(films), "--dataset", dataset, f"--engine={engine}"]) == 0
        assert recaption(["--dataset", dataset, f"--engine={engine}"]) == 0
        assert shard(["--dataset", dataset, f"--engine={engine}"]) == 0
    local, on_ray = tables(tmp_path / "local"), tables(tmp_path / "ray")
    assert sorted(local) == sorted(on_ray)
    assert [name for name in local if local[name] != on_ray[name]] == []
    assert sum(name.endswith(".tar") for name in local) >= 1


@pytest.mark.slow
def test_submitted_job(films: Path, tmp_path: Path) -> None:
    """`ray job submit` as the README shows it, against `ray start --head` with token authentication."""
    ray = shutil.which("ray", path=str(Path(sys.executable).parent))
    assert ray
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "HOME": str(tmp_path),
        "RAY_AUTH_MODE": "token",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def call(*words: str, timeout: int = 400) -> str:
        done = subprocess.run(
            [str(word) for word in words],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout + done.stderr

    call(ray, "get-auth-token", "--generate")
    short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray puts sockets there, whose paths must be short
    head = [
        ray, "start", "--head", "--block", "--port=26379", "--dashboard-port=28265", "--num-cpus=2",
        "--object-store-memory=268435456", "--include-dashboard=true", f"--temp-dir={short}",
        "--ray-client-server-port=21001", "--dashboard-agent-listen-port=25365",
    ]  # fmt: skip
    with open(tmp_path / "head.log", "w") as log:
        cluster = subprocess.Popen(head, env=environment, stdout=log, stderr=log)
    try:
        wait_for_port(28265, cluster)
        printed = call(
            ray, "job", "submit", "--address", "http://127.0.0.1:28265", "--working-dir", ".",
            "--submission-id", "films", "--",
            "python", "-m", "pipelines.curate", "--input", films, "--dataset", tmp_path / "dataset",
        )  # fmt: skip
        logs = call(ray, "job", "logs", "--address", "http://127.0.0.1:28265", "films")
    finally:
        cluster.terminate()
        cluster.wait(120)
        shutil.rmtree(short, ignore_errors=True)
    assert "8 in = 6 ok + 0 partial + 1 exact copies + 1 failed" in printed
    assert "succeeded" in printed.lower()
    assert (tmp_path / "dataset" / "clips" / "part-00000.parquet").exists()
    stages = re.findall(r"^curate/(\w+): (.*), done in \d+:\d\d$", logs, re.MULTILINE)
    assert [name for name, _ in stages] == ["analyse", "clip", "text", "commit", "decide"]
    assert stages[0][1].startswith("8/8 files, ok 7, failed 1, clips ")  # the copy is found out later


@pytest.mark.slow
def test_a_ray_that_a_job_starts_serves_its_metrics_where_it_was_told(films: Path, tmp_path: Path) -> None:
    """The process outlives its job here: Ray ends with it, and what was counted last is noted after a few seconds."""
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    words = [
        "--input", films, "--dataset", tmp_path, "--clip.model=off", "--engine=ray", "--ray.num_cpus=2",
        "--ray.object_store_gib=0.1", f"--ray.metrics_port={port}",
    ]  # fmt: skip
    job = "import sys; from pipelines.curate import main; main(sys.argv[1:]); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", job, *map(str, words)], cwd=ROOT, stdin=subprocess.PIPE)
    counted = r'ray_reelmill_files_total\{.*outcome="ok".*stage="commit".*\} 7\.0'  # a copy among them
    try:
        wait_for_port(port, process)
        until = time.monotonic() + 120
        while True:
            served = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
            if re.search(counted, served):
                break
            assert process.poll() is None, "the job ended"
            assert time.monotonic() < until, re.findall("ray_reelmill_files_total.*", served)
            time.sleep(0.5)
    finally:
        process.communicate(timeout=120)  # it reads that there is no more, and ends
    assert process.returncode == 0


def test_a_port_that_is_taken_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests may have one
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"cannot serve its metrics at port {port} .*Choose a free one"):
            start_ray(RayConfig(metrics_port=port))
    with pytest.raises(BadInput, match="at port 99999 "):
        start_ray(RayConfig(metrics_port=99_999))


def wait_for_port(port: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        assert process.poll() is None, "the process that starts Ray ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError("the job server did not come up within 90 s")
