"""What docker/compose.yaml and the Dockerfile say of a service: its command and its environment."""

import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
DOCKER = CHECKOUT / "docker"
VARIABLE = re.compile(r"\$\{(\w+)(?::([-+])([^}]*))?\}")


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """`text` with ${NAME}, ${NAME:-default} and ${NAME:+replacement} put in, as Compose does."""

    def put(match: re.Match) -> str:
        value, kind, words = variables.get(match[1], ""), match[2], match[3]
        return (words if value else "") if kind == "+" else value or words or ""

    return VARIABLE.sub(put, text)


def compose(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """compose.yaml with the variables of the shell that Compose would be called from."""
    return yaml.safe_load(interpolated((DOCKER / "compose.yaml").read_text(), variables or {}))


def instructions() -> list[tuple[str, str]]:
    """The last stage of the Dockerfile: (INSTRUCTION, rest of the line), continuations joined."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    last = joined[joined.rindex("\nFROM ") :].strip()
    return [tuple(line.split(maxsplit=1)) for line in last.splitlines() if line.strip()]


def image_environment() -> dict[str, str]:
    """The Dockerfile's ENV, but for PATH."""
    words = [word for name, rest in instructions() if name == "ENV" for word in shlex.split(rest)]
    return {k: v for k, v in (word.split("=", 1) for word in words) if k != "PATH"}


def entrypoint() -> list[str]:
    """The Dockerfile's ENTRYPOINT."""
    [words] = [rest for name, rest in instructions() if name == "ENTRYPOINT"]
    return json.loads(words)


class Service:
    """A service as a process of this host.

    Args:
        name: in compose.yaml.
        here: what a path, an address or a port of the containers is here; asked for each string.
        variables: of the shell that Compose would be called from.
    """

    def __init__(self, name: str, here: Callable[[str], str], variables: Mapping[str, str]) -> None:
        self.name, self.here = name, here
        self.said = compose(variables)["services"][name]

    def command(self, instead: str | None = None) -> list[str]:
        """What the container would run; `instead`: words given to `docker compose run`."""
        return [self.here(word) for word in [*entrypoint(), *shlex.split(instead or self.said["command"])]]

    def environment(self) -> dict[str, str]:
        """The image's and the service's variables."""
        both = {**image_environment(), **{k: str(v) for k, v in self.said.get("environment", {}).items()}}
        return {name: self.here(value) for name, value in both.items()}

    def health(self) -> list[str]:
        """The command that says whether it is healthy."""
        kind, *words = self.said["healthcheck"]["test"]
        assert kind == "CMD"
        return [self.here(word) for word in words]
