"""The served model as one Python file that needs nothing of isic_smp: models-from-code, in MLflow's words.

A model in the registry must predict years later and elsewhere, where isic_smp is not installed or is
another version; two versions must be loadable side by side. So the modules that a prediction goes
through travel with the model. They are put one after the other in one file, with their imports of each
other left out: the code that is served is the code that trained and scored, not a copy of it that drifts.
"""

import ast
import importlib
import inspect

import isic_smp

MODULES = (
    "isic_smp.errors",
    "isic_smp.data.images",
    "isic_smp.data.resize",
    "isic_smp.models.normalise",
    "isic_smp.inference.contrast",
    "isic_smp.inference.second_look",
    "isic_smp.inference.preprocessing",
    "isic_smp.inference.symmetries",
    "isic_smp.inference.pieces",
    "isic_smp.inference.bays",
    "isic_smp.inference.wrapping",
    "isic_smp.inference.finish",
    "isic_smp.inference.confidence",
    "isic_smp.inference.expected_iou",
    "isic_smp.inference.received",
    "isic_smp.inference.pyfunc",
)
"""In the order in which they need each other."""


def standalone_source() -> str:
    """The file's text.

    Raises:
        ValueError: a module uses what none before it defines, or two of them use one name for different things.
    """
    parts = [
        f'"""Lesion segmentation as trained, written by isic_smp {isic_smp.__version__}; needs none of it."""'
    ]
    owners: dict[str, str] = {}
    for name in MODULES:
        source = inspect.getsource(importlib.import_module(name))
        parts.append(f"# {name}\n\n{_without_own_imports(source, name, owners).strip()}")
    parts.append("mlflow.models.set_model(LesionModel())")
    return "\n\n\n".join(parts) + "\n"


def _without_own_imports(source: str, module: str, owners: dict[str, str]) -> str:
    """`source` less its imports from isic_smp; its own names are added to `owners`."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "isic_smp":
            for alias in node.names:
                if owners.get(alias.name) != node.module or alias.asname:
                    raise ValueError(
                        f"{module} imports {alias.name} of {node.module}, which is not before it"
                    )
            assert node.end_lineno is not None
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
        for name in _defined(node):
            if name in owners:
                raise ValueError(f"{module} and {owners[name]} both define {name}")
            owners[name] = module
    return "\n".join(lines)


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [node.target.id] if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else []
