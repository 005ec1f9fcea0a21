"""The answer of a grid of networks: what accuracy costs."""

from collections.abc import Callable

import numpy as np

from isic_smp.inference.load import load_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.sweeping.answer import Answer, Findings
from isic_smp.sweeping.pictures import draw_trade, pareto
from isic_smp.sweeping.plan import Params
from isic_smp.sweeping.results import table

BATCH, SECONDS = 32, 0.6


def trade_answer(
    findings: Findings, *, label: Callable[[Params], str], group: Callable[[Params], str]
) -> Answer:
    """Scores beside parameters, multiply-adds and images per second, and the picture of all of them.

    Args:
        findings: with test scores of every cell, where the study was tested.
        label: of a cell in the picture.
        group: cells of one group share a colour.
    """
    speeds = {
        id(cell): images_per_second(cell.trials[0].model, findings.tracking_uri) for cell in findings.cells
    }
    folder = findings.folder / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, what, cost in (
        ("trade_multiply_adds", "10⁹ multiply-adds an image", lambda cell: cell.trials[0].gmacs),
        ("trade_parameters", "10⁶ parameters", lambda cell: cell.trials[0].parameters / 1e6),
    ):
        path = folder / f"{name}.png"
        draw_trade(
            findings.cells,
            path,
            cost=cost,
            cost_name=what,
            label=lambda cell: label(cell.params),
            group=lambda cell: group(cell.params),
        )
        files.append(path)
    front = pareto(findings.cells, cost=lambda cell: cell.trials[0].gmacs)
    lines = [
        f"- {group(cell.params)}, {label(cell.params)}: validation IoU {cell.mean('val_iou'):.4f} for "
        f"{cell.trials[0].gmacs:.3f} · 10⁹ multiply-adds"
        for cell in front
    ]
    columns = {"images/s": [f"{speeds[id(cell)]:.0f}" for cell in findings.cells]}
    text = (
        f"{table(findings.cells, columns)}\n\nNone is both better on validation and cheaper than:\n\n"
        + "\n".join(lines)
    )
    return Answer(text + f"\n\nimages/s: this machine, batches of {BATCH}, without reading files", files)


def images_per_second(model: str, tracking_uri: str) -> float:
    """How many images of its input size a second go through the saved model, the median batch's speed."""
    from time import perf_counter

    bundle = load_bundle(model, tracking_uri=tracking_uri)
    predictor = Predictor(bundle.model, bundle.preprocessing)
    size = bundle.preprocessing.input_size
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8)
    predictor.probabilities(batch)
    durations: list[float] = []
    while sum(durations) < SECONDS or len(durations) < 3:
        begun = perf_counter()
        predictor.probabilities(batch)
        durations.append(perf_counter() - begun)
    return BATCH / sorted(durations)[len(durations) // 2]
