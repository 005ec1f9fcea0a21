"""The one direction of imports: what stands above is never imported from below, and nothing goes in a circle."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import isic_smp

PACKAGE = Path(isic_smp.__file__).parent
LAYERS = (
    {"errors"},
    {"files", "folder_lock", "processors", "stats", "store"},
    {"cli"},
    {"data", "models"},
    {"plugin", "training"},
    {"inference"},
    {"assessment", "network", "progress", "teaching"},
    {"prepare", "tracking"},
    {"setup"},
    {"conclude"},
    {"experiment", "comparison", "demo_page"},
    {"sweeping"},
    {"run", "predict", "evaluate", "compare", "sweep", "export", "registry", "demo", "sync", "pretrained"},
)
"""From the ground floor up, the rooms of isic_smp: a room imports from lower layers alone."""

FLOOR = {room: number for number, layer in enumerate(LAYERS) for room in layer}
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All of `tree`, late imports too, but for what only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from statements(node)


def imports(path: Path) -> set[str]:
    """The modules that a module imports, of whatever package."""
    found = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in names}
    return found


def own(path: Path) -> set[str]:
    """Those of isic_smp, but for the package itself, which imports nothing by itself."""
    return {name for name in imports(path) if name.startswith("isic_smp.")}


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_its_floor():
    assert {room(module) for module in MODULES if module != "isic_smp"} == set(FLOOR)


def test_imports_point_down():
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        if module != "isic_smp"
        for name in own(path)
        if room(name) != room(module) and FLOOR[room(name)] >= FLOOR[room(module)]
    ]
    assert not wrong


def test_imports_go_in_no_circle():
    graph = {module: own(path) for module, path in MODULES.items() if module != "isic_smp"}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_who_trains_knows_neither_mlflow_nor_optuna():
    for module, path in MODULES.items():
        if module.startswith(("isic_smp.data", "isic_smp.models", "isic_smp.training")):
            assert not {name.partition(".")[0] for name in imports(path)} & {"mlflow", "optuna"}, module
