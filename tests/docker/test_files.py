"""The files of docker/ against their schemas and linters, and their commands against the project's own parsers."""

import contextlib
import itertools
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from composed import CHECKOUT, DOCKER, compose, entrypoint, image_environment, instructions, interpolated

from isic_smp.tracking.ui import ADDRESS_VARIABLE, ui_hint

CLUSTER = DOCKER / "cluster"
MANIFESTS = [
    (path.name, document)
    for path in sorted(CLUSTER.glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
JOBS = [document for _, document in MANIFESTS if document["kind"] == "Job"]


def program(name: str, *words) -> subprocess.CompletedProcess:
    """Run a program that came with this Python's environment."""
    return subprocess.run([Path(sys.executable).parent / name, *words], capture_output=True, text=True)


def python(*words, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *words],
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def secrets(tmp_path) -> Path:
    done = python(DOCKER / "make_secrets.py", tmp_path / "secrets", "--postgres", "database:5432")
    assert done.returncode == 0, done.stderr
    return tmp_path / "secrets"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hadolint", [DOCKER / "Dockerfile"]),
        ("shellcheck", sorted(CLUSTER.glob("*.sbatch"))),
        (
            "check-jsonschema",
            ["--builtin-schema", "vendor.compose-spec", *sorted(DOCKER.glob("compose*.yaml"))],
        ),
    ],
)
def test_linters_and_the_compose_schema_have_nothing_to_say(name, words):
    done = program(name, *words)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "document"), MANIFESTS, ids=[f"{n}-{d['kind']}" for n, d in MANIFESTS])
def test_manifests_are_valid_kubernetes(name, document):
    kubernetes_validate.validate(document, "1.37", strict=True)


def test_containers_can_do_no_more_than_they_must():
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    assert ("USER", "10001:10001") in instructions()
    for job in JOBS:
        pod = job["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_every_version_is_pinned():
    images = {service["image"] for service in compose({"TAG": "cpu"})["services"].values()}
    assert images > {"isic-smp:cpu"}, "the project's own image, and those it is used with"
    for image in images - {"isic-smp:cpu"}:
        assert re.fullmatch(r"\w+:\d+\.\d+(\.\d+)*-\w+", image), image
    dockerfile = (DOCKER / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON=\d+\.\d+\.\d+-slim-\w+$", dockerfile, re.MULTILINE)
    bases = [line.split()[1] for line in dockerfile.splitlines() if line.startswith("FROM ")]
    assert set(bases) == {"python:${PYTHON}"}
    installs = [line for line in dockerfile.splitlines() if "pip install" in line]
    assert installs and all("-c constraints.txt" in line or "--no-deps ." in line for line in installs)


def test_what_the_image_is_made_of_is_in_the_build_context():
    wanted = {word for line in (DOCKER / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")
              and "--from" not in line for word in line.split()[1:-1]}  # fmt: skip
    allowed = {
        line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert wanted == allowed
    assert all((CHECKOUT / name).exists() for name in wanted)


def test_variables_are_put_in_as_compose_does():
    text = "a ${X:-d} b ${X:+r} c ${X}"
    assert interpolated(text, {}) == "a d b  c "
    assert interpolated(text, {"X": "1"}) == "a 1 b r c 1"


def test_each_secret_that_a_service_names_is_made_and_handed_to_it(secrets):
    whole = compose()
    files = {name: Path(said["file"]).name for name, said in whole["secrets"].items()}
    assert set(files.values()) == {path.name for path in secrets.iterdir()}
    for name, service in whole["services"].items():
        values = [str(value) for value in service["environment"].values()]
        used = {value.rpartition("/")[2] for value in values if value.startswith("/run/secrets/")}
        assert used == set(service["secrets"]), name


def test_secrets_are_for_their_owner_and_never_made_twice(secrets):
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    password = (secrets / "postgres_password").read_text().strip()
    assert len(password) >= 32
    assert f"isic:{password}@database:5432/study" in (secrets / "study_storage").read_text()
    again = python(DOCKER / "make_secrets.py", secrets)
    assert again.returncode == 1 and "nothing was changed" in again.stderr
    assert (secrets / "postgres_password").read_text().strip() == password
    ignored = subprocess.run(["git", "check-ignore", "docker/secrets/x"], cwd=CHECKOUT, capture_output=True)
    assert ignored.returncode == 0


def test_secrets_reach_the_command_by_its_environment(secrets):
    show = [sys.executable, "-c", "import os; print(os.environ['MLFLOW_TRACKING_PASSWORD'])"]
    given = {"SECRETS": str(secrets), "MLFLOW_TRACKING_PASSWORD_FILE": str(secrets / "mlflow_password")}
    done = python(DOCKER / "with_secrets.py", *show, **given)
    assert done.stdout == (secrets / "mlflow_password").read_text()
    (secrets / "mlflow_password").unlink()
    done = python(DOCKER / "with_secrets.py", *show, **given)
    assert done.returncode == 1
    assert "run docker/make_secrets.py first" in done.stderr and "Traceback" not in done.stderr


def test_the_image_s_folders_are_volumes_where_they_are_written():
    services = compose()["services"]
    for name in ("trainer", "worker"):
        mounted = [volume.split(":")[1] for volume in services[name]["volumes"]]
        assert mounted == ["/isic", "/cache", "/data"], name
    inside = [value for value in image_environment().values() if value.startswith("/")]
    assert all(value.startswith(("/isic", "/cache", "/tmp")) for value in inside)


@pytest.mark.parametrize("variables", [{}, {"MLFLOW_PORT": "5050"}])
def test_printed_addresses_are_ones_that_the_host_opens(variables, monkeypatch):
    services = compose(variables)["services"]
    [port] = services["mlflow"]["ports"]
    for name in ("trainer", "worker"):
        environment = services[name]["environment"]
        monkeypatch.setenv(ADDRESS_VARIABLE, environment[ADDRESS_VARIABLE])
        hint = ui_hint(environment["MLFLOW_TRACKING_URI"], experiment_id="3", run_id="ab")
        assert f"http://{port.removesuffix(':5000')}/#/experiments/3/runs/ab?" in hint
        assert "http://mlflow" not in hint


def sweeps() -> list[list[str]]:
    """Each recipe's command that runs a sweep, from the sweep's script on."""
    worker = compose()["services"]["worker"]["command"].split()
    args = [job["spec"]["template"]["spec"]["containers"][0]["args"] for job in JOBS]
    return [words[1:] for words in [worker, *args] if "/app/sweeps/" in words[1]]


def test_the_sweeps_of_compose_and_kubernetes_are_ones_that_exist():
    found = sweeps()
    assert len(found) == 2
    for script, *words in found:
        done = python(script.replace("/app", str(CHECKOUT)), *words, "--dry-run")
        assert done.returncode == 0 and "study freeze_vs_finetune, 9 trials" in done.stdout, done.stderr


def test_pods_start_with_the_image_s_entry_point_and_its_secrets():
    assert entrypoint() == ["python", "/app/docker/with_secrets.py"]
    for job in JOBS:
        pod = job["spec"]["template"]["spec"]
        [container] = pod["containers"]
        assert "command" not in container, "it would take the entry point's place"
        named = {e["value"].rpartition("/")[2] for e in container["env"] if e["name"].endswith("_FILE")}
        [volume] = [v for v in pod["volumes"] if "secret" in v]
        assert named == {item["key"] for item in volume["secret"]["items"]}


def test_a_job_s_pods_find_the_first_one():
    [service] = [d for _, d in MANIFESTS if d["kind"] == "Service"]
    [job] = [job for job in JOBS if job["spec"].get("completionMode") == "Indexed"]
    name, spec = job["metadata"]["name"], job["spec"]
    args = spec["template"]["spec"]["containers"][0]["args"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert f"--rdzv-endpoint={name}-0.{service['metadata']['name']}:29400" in args
    assert f"--nnodes={spec['completions']}" in args and spec["completions"] == spec["parallelism"]


def sbatch(script: str, *words: str, path: str = os.environ["PATH"], **environment: str):
    given = {
        "PYTHON": sys.executable,
        "SLURM_SUBMIT_DIR": str(CHECKOUT),
        "MLFLOW_TRACKING_URI": "http://localhost",
    }
    return subprocess.run(
        ["bash", CLUSTER / script, *words],
        env={**os.environ, **given, "PATH": path, **environment},
        capture_output=True,
        text=True,
    )


def test_the_slurm_array_runs_a_sweep_with_its_secrets(secrets):
    done = sbatch(
        "slurm_sweep.sbatch", "sweeps/search.py", "--trials", "7", "--dry-run", SECRETS=str(secrets)
    )
    assert done.returncode == 0 and "study search, 7 trials" in done.stdout, done.stderr
    assert sbatch("slurm_sweep.sbatch").returncode == 2
    lost = sbatch("slurm_sweep.sbatch", "sweeps/search.py", SECRETS="/nowhere")
    assert lost.returncode == 1 and "make_secrets.py" in lost.stderr


def signal_before_the_end(script: str) -> signal.Signals | None:
    """What Slurm sends to the script's own process before the time limit; without B: only steps of srun get it."""
    [said] = re.findall(r"^#SBATCH --signal=(\S+)@\d+$", (CLUSTER / script).read_text(), re.MULTILINE)
    return signal.Signals[f"SIG{said[2:]}"] if said.startswith("B:") else None


def test_the_slurm_worker_is_told_of_the_time_limit(secrets, tmp_path):
    """Without srun there is no step: the worker takes the place of the script, and gets what the script gets."""
    (tmp_path / "worker.py").write_text("import os\nprint(os.getpid(), os.getppid())\n")
    done = sbatch("slurm_sweep.sbatch", str(tmp_path / "worker.py"), SECRETS=str(secrets))
    assert int(done.stdout.split()[1]) == os.getpid(), done.stderr
    assert signal_before_the_end("slurm_sweep.sbatch") == signal.SIGTERM


def test_the_slurm_training_is_stopped_and_queued_again_before_its_time_limit(secrets, tmp_path):
    """`srun`, `scancel` and `scontrol` are stood in for, since there is no cluster here."""
    log = tmp_path / "log"
    bodies = {
        "srun": f"""echo $$ > {tmp_path}/pid; trap 'echo kept >> {log}; exit 130' TERM
                    echo "$MLFLOW_TRACKING_PASSWORD" >> {log}; while :; do sleep 0.1; done""",
        "scancel": f'echo "scancel $*" >> {log}; kill -TERM $(cat {tmp_path}/pid)',
        "scontrol": f'[ "$1" = show ] && echo n7 || echo "$*" >> {log}',
    }
    for name, body in bodies.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "n7", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_ID": "31"}
    given = {
        "SLURM_SUBMIT_DIR": str(CHECKOUT),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SECRETS": str(secrets),
    }
    process = subprocess.Popen(
        ["bash", CLUSTER / "slurm_torchrun.sbatch", "--output-dir", "runs/x"],
        env={**os.environ, **slurm, **given},
    )
    try:
        deadline = time.monotonic() + 30
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)  # until the script waits
        if (sent := signal_before_the_end("slurm_torchrun.sbatch")) is not None:
            process.send_signal(sent)
        assert process.wait(30) == 0
    finally:
        process.kill()
        with contextlib.suppress(OSError):
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    password = (secrets / "mlflow_password").read_text().strip()
    assert log.read_text().splitlines() == [password, "scancel --signal=TERM 31", "kept", "requeue 31"]


@pytest.mark.parametrize("folder", [["--output-dir", "runs/x"], ["--output-dir=runs/x"]])
def test_the_slurm_job_hands_torchrun_its_nodes(tmp_path, folder):
    """Two nodes' worth of words; `srun` and `scontrol` are stood in for, since there is no cluster here."""
    for name, body in (("scontrol", "echo n7; echo n9"), ("srun", 'printf "%s\\n" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "n[7,9]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "31"}
    path = f"{tmp_path}:{os.environ['PATH']}"
    words = [*folder, "--epochs", "3"]
    done = sbatch("slurm_torchrun.sbatch", *words, path=path, **slurm)
    assert done.returncode == 0, done.stderr
    said = done.stdout.split()
    pairs = list(itertools.pairwise(said))
    for pair in (("--nnodes", "2"), ("--rdzv-endpoint", "n7:29400"), ("--rdzv-id", "31")):
        assert pair in pairs
    torch_words = said[said.index(sys.executable) + 1 : said.index("--nnodes")]
    assert torch_words == ["-m", "torch.distributed.run"]
    assert said[said.index("isic_smp.run") :] == ["isic_smp.run", "--resume", *words]
    assert sbatch("slurm_torchrun.sbatch", "--epochs", "3", path=path, **slurm).returncode == 2
