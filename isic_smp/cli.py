"""What every command shares: parsing a dataclass from the command line, and one-line errors."""

import contextlib
import io
import os
import re
import select
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

from isic_smp.errors import UserError
from isic_smp.files import DISK_TROUBLE

T = TypeVar("T")

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_UNHEARD = 141
"""As a shell has it for what SIGPIPE ended."""


def quiet_libraries() -> None:
    """Set, before heavy imports, what keeps libraries from reaching for the network or chatting."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    # Pillow's, of what `data.images` refuses in a line of its own. By its words, since Pillow is not imported yet.
    warnings.filterwarnings("ignore", message=r"Image size \(\d+ pixels\) exceeds limit")


def parse(
    options: Callable[..., T],
    *,
    prog: str,
    description: str,
    argv: Sequence[str] | None = None,
    **tyro_args: Any,
) -> T:
    """Parse `argv` (default: the process's own) into the dataclass `options`.

    Raises:
        UserError: an unknown or malformed option; tyro's boxed message folded to one line.
    """
    import tyro

    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(options, prog=prog, description=description, args=argv, **tyro_args)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_unboxed(boxed.getvalue())) from None


def _with_home(word: str) -> str:
    """`--option=~/path` with the home folder in it: shells expand `~` only at a word's beginning."""
    option, equals, value = word.partition("=")
    if option.startswith("--") and (value == "~" or value.startswith("~/")):
        return option + equals + str(Path(value).expanduser())
    return word


_IN_PLAIN_WORDS = {
    r"invalid literal for int\(\) with base 10:": "expected a whole number, got",
    r"could not convert string to float:": "expected a number, got",
}


def _unboxed(box: str) -> str:
    """The box of a tyro error, a title over parts that lines divide, on one line."""
    title, _, text = box.strip("╭─ \n").partition("─")
    inside = [line.strip("│ ") for line in text.splitlines()[1:] if not line.startswith("╰")]
    parts = [" ".join(part.split()).rstrip(".") for part in re.split(r"─{3,}", "\n".join(inside))]
    if parts[0].startswith("Expected"):  # every other text says its title over again
        parts[0] = f"{title.strip()}: {parts[0]}"
    message = "; ".join(part for part in parts if part)
    for words, plain in _IN_PLAIN_WORDS.items():
        message = re.sub(words, plain, message)
    return message


def end_on_sigterm() -> None:
    """Let a scheduler's SIGTERM end this process as Ctrl-C does: checkpoint kept, MLflow run marked."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> None:
    # A scheduler and a parent may both send it: the second must not break into the first one's clean-up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def command(main: Callable[[], int | None], *, prog: str) -> None:
    """Run a command's `main` and exit: 0, 2 with one line for bad input or a disk that refuses, 130 when interrupted.

    Nobody need read stdout to its end (`… | head`). When nobody reads stderr any more, what was going on is given up: 141.
    """
    quiet_libraries()
    sys.argv[1:] = map(_with_home, sys.argv[1:])
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may be bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    code: int | str | None
    try:
        try:
            code = main() or 0
        except SystemExit as stop:  # --help
            code = stop.code
        if sys.stdout is not None:  # `>&-`
            sys.stdout.flush()  # at the interpreter's end it would be too late to answer for it
    except UserError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        code = EXIT_BAD_INPUT
    except KeyboardInterrupt as stop:
        print("; ".join([f"{prog}: interrupted", *map(str, stop.args)]), file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        unheard = _is_unheard(sys.stderr)
        if not unheard and not _is_unheard(sys.stdout):  # another pipe, of a process or a server
            raise
        code = EXIT_UNHEARD if unheard else 0
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(
            f"{prog}: error: {where}{error.strerror}; free some space or make the folder writable, then "
            "give the same command again",
            file=sys.stderr,
        )
        code = EXIT_BAD_INPUT
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:  # answered for above; the interpreter must not try again
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _is_unheard(stream: TextIO | None) -> bool:
    """Whether `stream` is a pipe that nobody reads any more."""
    if stream is None:
        return False
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
