"""The one kind of error that is the user's to mend: bad input, said in one line."""


class UserError(ValueError):
    """Bad input. The message is one line: what was got, what was expected, what to do.

    Commands print it without a traceback and exit with code 2 (`isic_smp.cli.command`);
    every other exception is a programming error and keeps its traceback.
    """

    def __str__(self) -> str:
        """On one line, whatever a file's name holds: control characters would break it, or paint the terminal."""
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in super().__str__())


class FolderInUse(UserError):
    """A run that is going on holds the output folder."""


class Stopped(Exception):
    """Whoever watches a training ends it before its time, on purpose: a sweep prunes the trial."""
