"""How a command ends: its exit code, and what it says of itself."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def start(main, **streams):
    """A command with that `main`, as users start it: its output goes through Python's buffer."""
    code = f"import os, sys, time\nfrom isic_smp import cli\ncli.command(lambda: {main}, prog='run')"
    return subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT, **streams)


def test_a_programming_error_keeps_its_traceback():
    _, said = (process := start("1 / 0", stderr=subprocess.PIPE)).communicate()
    assert process.returncode == 1
    assert b"ZeroDivisionError" in said


@pytest.mark.parametrize("main", ["print('much\\n' * 100_000)", "sys.stdin.read() or print('little')"])
def test_a_closed_pipe_is_no_error(main):
    process = start(main, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()  # as `| head` does
    process.stdin.close()
    assert process.stderr.read() == b"" and process.wait(timeout=60) == 0


def test_work_that_nobody_follows_any_more_is_not_called_done():
    main = "sys.stdin.read() or print('epoch', file=sys.stderr)"
    process = start(main, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stderr.close()  # as `2>&1 | head` does
    process.stdin.close()
    assert process.wait(timeout=60) == 141


def test_another_broken_pipe_is_an_error():
    broken = "[ends := os.pipe(), os.close(ends[0]), os.write(ends[1], b'x')]"
    _, said = (process := start(broken, stdout=subprocess.PIPE, stderr=subprocess.PIPE)).communicate()
    assert process.returncode == 1
    assert b"BrokenPipeError" in said


def test_a_full_disk_behind_stdout_is_said_in_one_line():
    with Path("/dev/full").open("w") as full:
        _, said = (process := start("print('a table')", stdout=full, stderr=subprocess.PIPE)).communicate()
    assert process.returncode == 2
    assert said.startswith(b"run: error: No space left on device; free some space") and said.count(b"\n") == 1


def test_a_home_folder_that_the_shell_left_alone_is_found(in_this_process, monkeypatch, tmp_path):
    from isic_smp import predict

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30), (200, 150, 130)).save(tmp_path / "photos" / "a.png")
    done = in_this_process(predict, "photos", "--out=~/masks")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "masks").is_dir()
    assert not (tmp_path / "~").exists()


COMMANDS = [
    *(
        ["-m", f"isic_smp.{name}"]
        for name in ("run", "evaluate", "predict", "compare", "registry", "export", "demo", "sync")
    ),
    *([str(path)] for path in sorted(Path("sweeps").glob("*.py"))),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[-1])
def test_help_shows_each_example_on_a_line_of_its_own(command):
    # It is to be copied; the parser flows lines together that are not indented.
    done = subprocess.run([sys.executable, *command, "--help"], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    examples = [line for line in lines if line.strip().startswith(f"python {' '.join(command)}")]
    assert examples, done.stdout
    assert all(line.count("python ") == 1 for line in examples)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["run", "--epochs", "x"], r"Error parsing --epochs: expected a whole number, got 'x'; "),
        (["run", "--lr", "x"], r"Error parsing --lr: expected a number, got 'x'; "),
        (["run", "--data-dir"], r"Missing value for argument '--data-dir'\. Expected 1 values; "),
        (["run", "--epoch", "1"], r"Unrecognized options: --epoch, 1; Perhaps you meant: --epochs INT "),
        (["evaluate", "--split", "all"], r"invalid choice 'all' for argument '--split'\. Expected one of "),
        (["registry"], r"Missing subcommand: Expected one of {register, promote, list, show}; "),
        (["export"], r"Missing from python -m isic_smp\.export: MODEL isic2016 \(the model"),
        (["sync"], r"nothing named to send: expected the --output-dir of one or more runs"),
    ],
)
def test_a_mistyped_command_is_said_in_one_line_that_reads_as_a_sentence(argv, said):
    done = subprocess.run(
        [sys.executable, "-m", f"isic_smp.{argv[0]}", *argv[1:]], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    [line] = done.stderr.splitlines()
    assert re.match(rf"python -m isic_smp\.{argv[0]}: error: {said}", line), line
