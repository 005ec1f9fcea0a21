"""Whether a torch.export file (.pt2) is what it should be: a graph of torch's operators and its tensors, and no code.

`torch.export.load` trusts an archive: it unpickles, loads compiled libraries, has sympy evaluate the sizes of tensors,
and writes and runs Python from the graph's names and guards. So all of it is looked at first, record by record and text
by text, and written anew: the file itself might show torch's reader of archives another content than Python's.
"""

import ast
import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isic_smp.errors import UserError

LARGEST_JSON = 32 * 2**20
"""Bytes; graphs of the largest models of segmentation-models-pytorch take a few million."""

_PLAIN = re.compile(
    r"archive_format|archive_version|byteorder|(\.data/)?version|\.data/serialization_id|\.format_version"
    r"|\.storage_alignment|extra/[^/]+|data/weights/weight_\d+|data/constants/tensor_\d+"
)
_GRAPH = re.compile(r"models/[^/]+\.json")
_CONFIG = re.compile(r"data/(weights|constants)/[^/]+_config\.json")
_INPUTS = re.compile(r"data/sample_inputs/[^/]+\.pt")

_NAME = re.compile(r"-?(?!__)\w*(\.(?!__)\w*)*", re.ASCII)  # the minus is of "-Infinity"
_OPERATOR = re.compile(
    # from_file and save reach the disk.
    r"torch\.ops\.aten\.(?!__|from_file|save)\w+\.(?!__)\w+|torch\.sym_\w+|math\.(trunc|ceil|floor)"
    r"|_operator\.(eq|ne|l[et]|g[et]|neg|pos|mul|add|sub|(floor|true)div|mod|pow|and_|or_|[lr]shift|getitem)",
    re.ASCII,
)
_WORDS = re.compile(r"[\w ,.>+-]*", re.ASCII)
_TREE = re.compile(  # the shape of inputs and outputs
    r'([\[\]{}:, 1]|null|"(type|context|children_spec|null|\[\]|builtins\.(tuple|list|dict))")*'
)
_TEXTS = {
    "target": _OPERATOR,
    "as_operator": _OPERATOR,
    "as_string": _WORDS,
    "as_strings": _WORDS,
    "torch_version": _WORDS,
    "in_spec": _TREE,
    "out_spec": _TREE,
}
"""What a text of a graph must look like, by its key; all others are names."""

_NOT_NEEDED: dict[str, Any] = {"metadata": {}, "guards_code": []}

_SIZES = re.compile(
    "Symbol|Integer|Float|Rational|Tuple|Add|Mul|Pow|Max|Min|Abs|And|Or|Not|Equality|Unequality|Eq|Ne|GreaterThan|LessThan"
    "|StrictGreaterThan|StrictLessThan|Piecewise|ExprCondPair|true|false|oo|int_oo"
    "|FloorDiv|ModularIndexing|Where|PythonMod|Mod|CleanDiv|CeilToInt|FloorToInt|CeilDiv|LShift|RShift|PowByNatural"
    "|FloatPow|FloatTrueDiv|IntTrueDiv|IsNonOverlappingAndDenseIndicator|TruncToFloat|TruncToInt|RoundToInt"
    "|RoundDecimal|ToFloat|Identity"
)
"""What torch makes sizes of: sympy's names and torch's own, none of which evaluates a text."""


def checked_program(path: Path) -> io.BytesIO:
    """The file `path` for `torch.export.load`, without guards and the inputs that it was exported with.

    Raises:
        UserError: it holds what could run as code, or a record that is not known.
        Exception: it is damaged.
    """
    checked = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(checked, "w") as new:
        records = archive.infolist()
        names = [record.filename for record in records]
        if len(set(names)) != len(names):
            raise UserError("it holds a record twice, so that readers may see different ones")
        if len({name.partition("/")[0] for name in names}) > 1:
            raise UserError("it holds more than one archive")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise UserError("it is compressed, which torch's own are not: export the model again")
        for record in records:
            name = record.filename.partition("/")[2]
            if name.endswith(".json") and record.file_size > LARGEST_JSON:
                raise UserError(f"its record {name} has {record.file_size:,} bytes, at most {LARGEST_JSON:,}")
            new.writestr(record.filename, _checked(name, archive.read(record)))
    checked.seek(0)
    return checked


def _checked(name: str, content: bytes) -> bytes:
    if _PLAIN.fullmatch(name):
        return content
    if _INPUTS.fullmatch(name):
        return b""  # a pickle
    if _GRAPH.fullmatch(name):
        return json.dumps(_without_code(json.loads(content))).encode()
    if _CONFIG.fullmatch(name) and _all_raw(json.loads(content)):
        return content
    raise UserError(f"its record {name} may run code when it is loaded: export the model again")


def _all_raw(config: Mapping[str, Any]) -> bool:
    """Whether every tensor is kept as plain bytes."""
    payloads = config["config"].values()
    return all(
        not payload["use_pickle"] and re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"])
        for payload in payloads
    )


def _without_code(value: Any, key: str = "name") -> Any:
    """A part of the graph, less what is not needed; refused where a text in it may run.

    Args:
        value: as JSON has it.
        key: what it is the value of, also through lists.
    """
    if isinstance(value, dict):
        return {
            _without_code(name): _NOT_NEEDED[name] if name in _NOT_NEEDED else _without_code(part, name)
            for name, part in value.items()
        }
    if isinstance(value, list):
        return [_without_code(part, key) for part in value]
    if isinstance(value, str):
        known = is_size(value) if key == "expr_str" else _TEXTS.get(key, _NAME).fullmatch(value)
        if not known:
            raise UserError(
                f"its {key} {value[:60]!r} may run code when it is loaded: export the model again"
            )
    return value


def is_size(text: str) -> bool:
    """Whether it is as torch writes sizes: Add(Symbol('s0', integer=True), Integer(-1)), nothing but such calls."""
    return all(_is_part_of_size(node) for node in ast.walk(ast.parse(text, mode="eval")))


def _is_part_of_size(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name):
            return _SIZES.fullmatch(name) is not None
        case ast.Call(func=called):
            return isinstance(called, ast.Name)
        case ast.Constant(value=str(text)):
            return _NAME.fullmatch(text) is not None
        case ast.Constant(value=value):
            return isinstance(value, int | float)
    return isinstance(node, ast.Expression | ast.Load | ast.keyword | ast.UnaryOp | ast.USub)
