"""Keeps this machine's source paths and lines out of torch.export's programs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.fx.config

_SWITCH = "do_not_emit_stack_traces"


@contextlib.contextmanager
def no_source_paths() -> Iterator[None]:
    """Have torch.export leave them out, where it can: torch 2.10 cannot."""
    before = getattr(torch.fx.config, _SWITCH, None)
    if before is not None:
        setattr(torch.fx.config, _SWITCH, True)
    try:
        yield
    finally:
        if before is not None:
            setattr(torch.fx.config, _SWITCH, before)


def drop_source_paths(program: torch.export.ExportedProgram) -> None:
    """Take them out of a program that was exported."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def drop_source_paths_from_file(path: Path) -> None:
    """Take them out of a .pt2 file, where torch could not leave them out."""
    if not hasattr(torch.fx.config, _SWITCH):
        program = torch.export.load(path)
        drop_source_paths(program)
        torch.export.save(program, path)
