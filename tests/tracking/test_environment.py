import subprocess

import pytest

from isic_smp.tracking.environment import git_commit, run_tags


def test_tags_name_versions_machine_and_program():
    import torch

    tags = run_tags()
    assert tags["version.torch"] == torch.__version__.partition("+")[0]
    assert {
        "version.isic-smp",
        "version.timm",
        "version.mlflow",
        "python",
        "machine.cpu",
        "machine.cores",
    } <= set(tags)
    assert all(isinstance(value, str) and value for value in tags.values())


def test_the_command_holds_no_folders_and_no_passwords(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = [
        "--data-dir=/home/someone/isic",
        "--out",
        str(tmp_path / "runs"),
        "--uri",
        "http://me:secret@host/x",
        "--tracking-uri",
        "sqlite:////home/someone/mlflow.db",
    ]
    monkeypatch.setattr("sys.argv", ["/usr/bin/run.py", *words])
    command = run_tags()["command"]
    assert "secret" not in command and "someone" not in command
    assert "--data-dir=…/isic" in command and "--out runs" in command and "me:***@host/x" in command
    assert "sqlite:///…/mlflow.db" in command


@pytest.fixture
def checkout(tmp_path):
    def git(*words):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "file.txt").write_text("one")
    git("add", "file.txt")
    git("commit", "-q", "-m", "one")
    return tmp_path


def test_the_commit_says_when_files_were_changed(checkout):
    clean = git_commit(checkout)
    assert clean is not None and len(clean) == 40
    (checkout / "file.txt").write_text("two")
    assert git_commit(checkout) == f"{clean}-dirty"


def test_outside_of_a_checkout_there_is_no_commit(tmp_path):
    assert git_commit(tmp_path) is None
