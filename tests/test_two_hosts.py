"""One run on two hosts, as docs/clusters.md starts it: two network namespaces with names and addresses of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_run import draw_pictures, write_recipe

pytestmark = pytest.mark.slow

HOSTS = {"node0": "10.213.7.1", "node1": "10.213.7.2"}
GIVEN = ["--data", "synthetic", "--data-dir", "pictures", "--recipe", "small.yaml", "--experiment", "hosts"]
TORCHRUN = [
    *("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-id", "one"),
    *("--rdzv-backend", "c10d", "--rdzv-endpoint", "node0:29400", "-m", "isic_smp.run"),
]
AS_HOST = 'hostname "$0" && mount --bind hosts /etc/hosts && exec "$@"'


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[dict[str, list[str]]]:
    """For each host's name the words that run a command on it."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and `ip` (Debian: apt-get install iproute2)")
    space = {name: f"isic-{os.getpid()}-{name}" for name in HOSTS}
    try:
        ip("netns", "add", space["node0"])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine allows no network namespaces: {error.stderr.strip()}")
    try:
        ip("netns", "add", space["node1"])
        ends = [f"isic{os.getpid()}{end}" for end in "ab"]
        ip(
            "link",
            "add",
            ends[0],
            "netns",
            space["node0"],
            "type",
            "veth",
            "peer",
            ends[1],
            "netns",
            space["node1"],
        )
        for (name, address), end in zip(HOSTS.items(), ends, strict=True):
            ip("-n", space[name], "address", "add", f"{address}/30", "dev", end)
            ip("-n", space[name], "link", "set", end, "up")
            ip("-n", space[name], "link", "set", "lo", "up")
        alone = ["unshare", "--uts", "--mount", "sh", "-c", AS_HOST]
        yield {name: ["ip", "netns", "exec", space[name], *alone, name] for name in HOSTS}
    finally:
        for name in HOSTS:
            subprocess.run(["ip", "netns", "del", space[name]], capture_output=True)


def history(folder: Path) -> list[dict]:
    return json.loads((folder / "history.json").read_text())


def test_two_hosts_are_one_run_with_the_metrics_of_one_process(hosts, tmp_path):
    write_recipe(tmp_path / "small.yaml", recipe="default", loss="lovasz", keep="best", precision="float32")
    names = "".join(f"{address} {name}\n" for name, address in HOSTS.items())
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
    draw_pictures(tmp_path / "pictures", train=27)  # the last batch has 3, which two processes share unevenly
    alone = [sys.executable, "-m", "isic_smp.run", *GIVEN, "--output-dir", "alone", "--cache-dir", "cache"]
    subprocess.run(alone, cwd=tmp_path, check=True, capture_output=True)
    # Each host has folders of its own: no folder is shared.
    for name in hosts:
        (tmp_path / name).mkdir()
        shutil.copytree(tmp_path / "pictures", tmp_path / name / "pictures")
        for file in ("small.yaml", "hosts"):
            shutil.copy(tmp_path / file, tmp_path / name)
    running = [
        subprocess.Popen(
            [*host, sys.executable, *TORCHRUN, *GIVEN, "--output-dir", "together", "--cache-dir", "cache"],
            cwd=tmp_path / name,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, host in hosts.items()
    ]
    try:
        said = [process.communicate(timeout=600)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    assert sum(text.count("test loss") for text in said) == 1
    [first] = tmp_path.glob("node?/together")  # of the host that has rank 0, whichever that is
    assert (first / "model" / "model.safetensors").exists()
    one, two = history(tmp_path / "alone"), history(first)
    # The first steps are equal to rounding, which such a small network then multiplies from epoch to epoch; BatchNorm
    # by each host's own images would be off by 7 % and more.
    assert two[0]["train_loss"] == pytest.approx(one[0]["train_loss"], rel=1e-5)
    for alone, together in zip(one, two, strict=True):
        for name in ("train_loss", "val_loss"):
            assert together[name] == pytest.approx(alone[name], rel=1e-2), name
        for name in ("train_iou", "val_iou"):
            assert together[name] == pytest.approx(alone[name], abs=1e-2), name
