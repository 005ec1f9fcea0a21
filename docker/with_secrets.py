"""Start a command with its secrets in the environment, read from files.

python docker/with_secrets.py COMMAND WORD …

Of each variable NAME_FILE that names a file below SECRETS (default: /run/secrets), NAME becomes the file's text,
as the official images have it, so that no secret stands in a compose file, a command line or an image.
"""

import os
import sys
from pathlib import Path


def with_secrets(environment: dict[str, str]) -> dict[str, str]:
    """`environment` with NAME for each NAME_FILE.

    Raises:
        SystemExit: a file that is missing or empty; its name is in the message.
    """
    folder = Path(environment.get("SECRETS", "/run/secrets"))
    found = dict(environment)
    for name, value in environment.items():
        path = Path(value)
        if name.endswith("_FILE") and path.parent == folder:
            try:
                found[name.removesuffix("_FILE")] = text = path.read_text(encoding="utf-8").strip()
            except OSError as error:
                sys.exit(
                    f"with_secrets: cannot read {path} ({error.strerror}): run docker/make_secrets.py first"
                )
            if not text:
                sys.exit(
                    f"with_secrets: {path} is empty: delete the secrets and run docker/make_secrets.py again"
                )
    return found


def main() -> None:
    """Become the command."""
    if len(sys.argv) < 2:
        sys.exit("with_secrets: expected a command")
    os.execvpe(sys.argv[1], sys.argv[1:], with_secrets(dict(os.environ)))  # noqa: S606 - the command of the image


if __name__ == "__main__":
    main()
