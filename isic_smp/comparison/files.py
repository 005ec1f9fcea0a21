"""The files of a comparison: the report, its pictures, and the table of all images."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from isic_smp.comparison import figures
from isic_smp.comparison.effects import Comparison
from isic_smp.comparison.report import write_report
from isic_smp.data.isic2016 import LesionData
from isic_smp.errors import UserError

REPORT, TABLE, PICTURES = "report.html", "images.csv", "pictures"


def write_files(
    folder: Path,
    comparisons: Sequence[Comparison],
    *,
    setting: str,
    caveats: Sequence[str],
    data: LesionData | str,
    diagnosis: Mapping[str, str] | None,
    images: int,
    tracking_uri: str | None,
) -> tuple[list[Path], list[str]]:
    """Write `report.html`, `images.csv` and `pictures/*.png` into `folder`.

    Args:
        folder: exists, with a folder `pictures` in it.
        comparisons: all against the same first group.
        setting: one line on data, split and metric.
        caveats: what the answer leaves open.
        data: that the runs were scored on, or why they are not at hand.
        diagnosis: of each image id, where known.
        images: how many images to show each way that differ most.
        tracking_uri: MLflow store of the models.

    Returns:
        The files, and a sentence for each thing that could not be shown as it should.
    """
    drawn, notes = folder / PICTURES, []
    figures.effects(comparisons, drawn / "effects.png")
    pictures = {"Effects": [drawn / "effects.png"]}
    for n, comparison in enumerate(comparisons, start=1):
        number = f"{n:0{len(str(len(comparisons)))}}"  # so that MLflow, which sorts names, keeps their order
        end = f"-{number}-{comparison.b.slug}.png" if len(comparisons) > 1 else ".png"
        shown = [drawn / f"scatter{end}", drawn / f"differences{end}"]
        figures.scatter(comparison, shown[0])
        figures.differences(comparison, shown[1])
        if images:
            try:
                notes += _draw_images(
                    drawn / f"images{end}", comparison, data, diagnosis, images, tracking_uri
                )
                shown.append(drawn / f"images{end}")
            except UserError as error:
                notes.append(f"The images that differ most are not shown: {error}.")
        pictures[f"{comparison.b.label} against {comparison.a.label}, image by image"] = shown
    notes = list(dict.fromkeys(notes))
    report = folder / REPORT
    write_report(report, comparisons, setting=setting, caveats=[*caveats, *notes], pictures=pictures)
    _write_table(folder / TABLE, comparisons, diagnosis)
    return [report, folder / TABLE, *(file for shown in pictures.values() for file in shown)], notes


def _draw_images(
    path: Path,
    comparison: Comparison,
    data: LesionData | str,
    diagnosis: Mapping[str, str] | None,
    count: int,
    tracking_uri: str | None,
) -> list[str]:
    if isinstance(data, str):
        raise UserError(data)
    from isic_smp.comparison.cases import draw_cases, pick_cases

    cases = pick_cases(comparison, count)
    if not cases:
        raise UserError("all images are scored the same")
    return draw_cases(comparison, cases, data, path, diagnosis=diagnosis, tracking_uri=tracking_uri)


def _write_table(path: Path, comparisons: Sequence[Comparison], diagnosis: Mapping[str, str] | None) -> None:
    """A row an image: share of lesion pixels, diagnosis, each group's score averaged over seeds."""
    first = comparisons[0].a
    groups = [first, *(c.b for c in comparisons)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        known = ["diagnosis"] if diagnosis is not None else []
        writer.writerow(
            ["id", "lesion_area", *known, *(f"{comparisons[0].metric} {g.label}" for g in groups)]
        )
        for i, image_id in enumerate(first.runs[0].ids):
            named = [diagnosis.get(image_id, "")] if diagnosis is not None else []
            scores = [float(group.per_image[i]) for group in groups]
            writer.writerow([image_id, float(first.runs[0].lesion_area[i]), *named, *scores])
