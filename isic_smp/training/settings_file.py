"""A YAML file of settings, as a plain mapping; or one line that says what is wrong with it."""

import re
from pathlib import Path
from typing import Any

import yaml

from isic_smp.errors import UserError

LARGEST = 1_000_000
"""Bytes; a recipe has a few hundred."""


_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*)")


class _Loader(yaml.SafeLoader):
    """YAML without tags of its own, which refuses a name that is given twice and reads 1e-3 as a number, 010 as none."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping.

        Raises:
            ConstructorError: the same key twice.
        """
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is set twice", key.start_mark
                )
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number. In YAML 1.1, which PyYAML follows, 010 is eight and 1:30 is ninety.

        Raises:
            ConstructorError: it is written in another base than ten.
        """
        if not _DECIMAL.fullmatch(node.value):
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value} is not a number in decimal digits", node.start_mark
            )
        return int(super().construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
# YAML 1.1 wants a point and a sign in an exponent (1.0e-3), and takes 1e-3 for text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_settings(path: Path, what: str) -> dict[Any, Any]:
    """The mapping in the YAML file `path`; `~/` at the beginning of a value is the home folder.

    Args:
        path: the file.
        what: names it in messages ("recipe").

    Raises:
        UserError: it cannot be read, is no YAML, sets something twice, or holds no mapping.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"the {what} {path} has more than {LARGEST} bytes: expected a file of settings")
        settings = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)  # noqa: S506 - a SafeLoader
    except RecursionError:
        raise UserError(f"cannot read the {what} {path}: nested too deeply") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read the {what} {path}: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(settings, dict):
        raise UserError(f"the {what} {path} must hold `setting: value` lines, got {type(settings).__name__}")
    return {
        name: [_with_home(one) for one in value] if isinstance(value, list) else _with_home(value)
        for name, value in settings.items()
    }


def _with_home(value: Any) -> Any:
    """`~/path` with the home folder in it, which a shell would have put there.

    Of lists within lists nothing is looked at: no setting is one, and by anchors a short file can hold endlessly many.
    """
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~/") else value
