"""How a command ends: its exit code, and what it says of itself."""

import subprocess
import sys


def test_a_programming_error_keeps_its_traceback():
    code = "from isic_smp import cli\ncli.command(lambda: 1 / 0, prog='run')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_closed_pipe_is_no_error():
    code = "from isic_smp import cli\ncli.command(lambda: print('much\\n' * 100_000), prog='run')"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()  # as `| head` does
    assert process.stderr.read() == b"" and process.wait(timeout=60) == 0
