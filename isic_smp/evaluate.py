"""Score a saved model again, on any split of ISIC 2016 part 1, or of as much of it as is there.

    python -m isic_smp.evaluate --model runs/20260102-030405-frozen-seed0
    python -m isic_smp.evaluate --model models:/lesions@champion --data-dir data/isic2016
    python -m isic_smp.evaluate --model RUN_ID --split val --out scores --masks

Beside the mean scores: kinds of images with the worst of them, distances of outlines, calibration of the
probabilities, and what the expected IoU finds of the masks that failed (docs/evidence.md says how each is
computed). With --out, tables and pictures of all that are written, and the worst masks and some from the best to
the worst are drawn; with --masks also the predicted masks are written, which the official scorer reads as they are:
isic-challenge-scoring segmentation TRUTH_DIR OUT/masks_test
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from isic_smp import cli
from isic_smp.data.names import Data
from isic_smp.errors import UserError

if TYPE_CHECKING:
    from isic_smp.assessment.assess import Assessment
    from isic_smp.assessment.fitting import Fitted
    from isic_smp.assessment.observations import Observations
    from isic_smp.data.isic2016 import LesionData
    from isic_smp.data.pairs import Pair
    from isic_smp.inference.load import Bundle
    from isic_smp.inference.predictor import Predictor
    from isic_smp.inference.scores import Scores
    from isic_smp.inference.scoring import MaskSink

PROG = "python -m isic_smp.evaluate"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is scored on what."""

    model: str = "isic2016"
    """isic2016 is the model that comes with the package. Else a run's --output-dir, a model folder, a run id, runs:/ID, models:/NAME@ALIAS or models:/NAME/3."""
    data: Data = "auto"
    """auto: ISIC 2016 where it is found, else drawn pictures, said loudly."""
    data_dir: Path | None = None
    """Folder that holds the four ISIC 2016 part 1 folders. Else ISIC_SMP_DATA, else ./data/isic2016."""
    split: Literal["test", "val", "train"] = "test"
    """Which images."""
    binarize_masks: bool = False
    """Take grey mask values above 128 as lesion, instead of refusing the mask."""
    out: Path | None = None
    """Folder for scores_<split>.csv, one row an image, groups_<split>.csv, assessment_<split>.json and
    pictures of them and of masks. Default: nothing is written."""
    masks: bool = False
    """Write the predicted masks too, at the images' own sizes, to masks_<split> in --out."""
    outlines: bool = True
    """Measure how far the outlines lie apart: a millisecond an image of 256 × 256, a tenth of a second a camera's."""
    diagnoses: Path | None = None
    """A CSV file with the columns id and diagnosis. Default: manifest.csv in the data's folder, if it is there."""
    cache_dir: Path | None = None
    """Drawn pictures and file digests. Default: ISIC_SMP_CACHE, else the user's cache folder."""
    tracking_uri: str | None = None
    """MLflow store of runs and registered models. Default: MLFLOW_TRACKING_URI, else ./mlruns."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def main(argv: Sequence[str] | None = None) -> None:
    """Score one model and print its table."""
    options = cli.parse(Options, prog=PROG, description=str(__doc__), argv=argv)
    if options.masks and options.out is None:
        raise UserError("--masks needs --out, the folder to write them to")
    if options.out is not None:  # before the work, not after it
        check_writable(options.out)
    from isic_smp.data.diagnoses import read_diagnoses, read_diagnosis_table

    diagnosis = read_diagnosis_table(options.diagnoses) if options.diagnoses else None
    from isic_smp.assessment import text
    from isic_smp.assessment.assess import assess
    from isic_smp.data.division import as_divided
    from isic_smp.data.isic2016 import split_lists
    from isic_smp.data.source import default_cache_dir, resolve_data
    from isic_smp.inference.load import load_bundle

    bundle = load_bundle(options.model, tracking_uri=options.tracking_uri)
    cache_dir = options.cache_dir or default_cache_dir()
    data, _ = resolve_data(options.data, options.data_dir, cache_dir=cache_dir)
    if options.split != "test":
        # A model of a fold, or of a group held out, was trained on most of the usual validation images.
        fingerprint = bundle.info.get("data", {}).get("fingerprint", "")
        data = as_divided(data, fingerprint, cache_dir=cache_dir, binarize_masks=options.binarize_masks)
    print(f"data: {data.describe()}, fingerprint {data.fingerprint}")
    warn_of_other_data(bundle, data)
    if options.out is not None:
        check_masks(bundle, data, options)
    pairs = getattr(data, options.split)
    if diagnosis is None:
        diagnosis = read_diagnoses(data.root)
    elif not any(diagnosis.get(pair.id) for pair in pairs):
        raise UserError(
            f"{options.diagnoses} gives none of the {len(pairs)} images a diagnosis: expected ids without ending, such as "
            f"{pairs[0].id if pairs else 'ISIC_0000003'}"
        )
    scores, observed = score_split(bundle, data, options)
    print(table(scores, options.split))
    fitted = find_fitted(bundle, data, options, scores, observed)
    # Of what another model was trained on, no more is known here than the official list.
    learned_from = None if is_own(bundle, data) else split_lists()["train"]
    found = assess(
        scores, observed, data, options.split, fitted=fitted, diagnosis=diagnosis, learned_from=learned_from
    )
    print("\n".join(text.lines(found, fitted_here=options.split == "val" and is_own(bundle, data))))
    if options.out is not None:
        write(found, options.out, options.split)
        draw_masks(found, bundle, data, options)
        print(f"\nscores of each image, groups, summary and pictures: {options.out}/*_{options.split}.*")
        if options.masks:
            print(f"masks: {masks_dir(options)}")


def check_writable(folder: Path) -> None:
    """Make the folder where it is missing.

    Raises:
        UserError: nothing can be written to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None


def check_masks(bundle: "Bundle", data: "LesionData", options: Options) -> None:
    """Keep masks and tables of two models out of one folder.

    Raises:
        UserError: there are masks of another model, or of other images where masks are to be written.
    """
    from isic_smp.inference.mask_files import claim, refuse_masks_of_another
    from isic_smp.inference.open_predictor import digest_of

    made_by = {"model": digest_of(bundle.model), **bundle.preprocessing.to_dict(), "data": data.fingerprint}
    if options.masks:
        claim(masks_dir(options), (pair.id for pair in getattr(data, options.split)), made_by)
    else:
        refuse_masks_of_another(masks_dir(options), made_by)


def warn_of_other_data(bundle: "Bundle", data: "LesionData") -> None:
    """Say on stderr that scores on other data don't stand beside those of the model's own run.

    A run that a part was kept from (`--fold`, `--hold-out`) has the same test images.
    """
    from isic_smp.data.fingerprint import parted

    trained_on = bundle.info.get("data", {})
    known = trained_on.get("fingerprint")
    if not known or parted(known)[0] != parted(data.fingerprint)[0]:
        named = f"{trained_on.get('description')}, fingerprint {known}" if known else "unknown data"
        print(f"warning: the model was trained on other data ({named})", file=sys.stderr)


def is_own(bundle: "Bundle", data: "LesionData") -> bool:
    """Whether these are the data that the model was trained and validated on."""
    return bundle.info.get("data", {}).get("fingerprint") == data.fingerprint


def score_split(bundle: "Bundle", data: "LesionData", options: Options) -> "tuple[Scores, Observations]":
    """The scores of the chosen split, computed as at the end of the model's own run."""
    from isic_smp.inference.mask_files import write_mask

    sink = (lambda p, mask: write_mask(masks_dir(options), p.id, mask)) if options.masks else None
    return _score(bundle, getattr(data, options.split), options, desc="images", on_mask=sink)


def find_fitted(
    bundle: "Bundle", data: "LesionData", options: Options, scores: "Scores", observed: "Observations"
) -> "Fitted | None":
    """What was fitted on validation images and saved with the model.

    For a model of an older version it is fitted now, on its own validation images alone: None where the
    data are others.
    """
    from isic_smp.assessment.fitting import Fitted, fit_on_validation

    if (known := Fitted.from_facts(bundle.info)) is not None or not is_own(bundle, data):
        return known
    if options.split == "val":
        return fit_on_validation(scores, observed)
    return fit_on_validation(*_score(bundle, data.val, options, desc="validation images"))


def _score(
    bundle: "Bundle",
    pairs: "Sequence[Pair]",
    options: Options,
    *,
    desc: str,
    on_mask: "MaskSink | None" = None,
) -> "tuple[Scores, Observations]":
    from tqdm import tqdm

    from isic_smp.assessment.observations import score_and_observe
    from isic_smp.training.losses import make_loss

    # Single settings, not a whole Recipe: a model must stay readable when recipes have changed.
    recipe = bundle.info.get("recipe", {})
    predictor = predictor_of(bundle, options)
    with tqdm(total=len(pairs), desc=desc, file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
        return score_and_observe(
            predictor,
            pairs,
            outlines=options.outlines,
            batch_size=recipe.get("batch_size", 32),
            binarize_masks=options.binarize_masks,
            loss=make_loss(recipe["loss"]) if "loss" in recipe else None,
            on_mask=on_mask,
            progress=bar.update,
        )


def predictor_of(bundle: "Bundle", options: Options) -> "Predictor":
    """The model as it was saved, on the device that is asked for."""
    from isic_smp.inference.predictor import Predictor
    from isic_smp.training.device import choose_device

    return Predictor(bundle.model, bundle.preprocessing, device=choose_device(options.device))


def write(found: "Assessment", folder: Path, split: str) -> None:
    """Write the tables and the pictures."""
    import dataclasses
    import json

    from isic_smp.inference.scores import write_columns
    from isic_smp.tracking.assessment_plots import draw_assessment

    write_columns(found.table(), folder / f"scores_{split}.csv")
    groups = [dataclasses.asdict(group) for group in found.groups]
    columns = {name: [group[name] for group in groups] for name in groups[0]}
    write_columns(columns, folder / f"groups_{split}.csv")
    summary = folder / f"assessment_{split}.json"
    summary.write_text(json.dumps(found.to_dict(), indent=1), encoding="utf-8")
    draw_assessment(found, folder, split)


def draw_masks(found: "Assessment", bundle: "Bundle", data: "LesionData", options: Options) -> None:
    """Draw the worst masks, and some from the best to the worst."""
    from isic_smp.tracking.case_pictures import draw_cases

    assert options.out is not None
    draw_cases(
        found,
        getattr(data, options.split),
        predictor_of(bundle, options),
        options.out,
        options.split,
        binarize_masks=options.binarize_masks,
    )


def masks_dir(options: Options) -> Path:
    """The folder that holds nothing but the masks of this split, as the official scorer wants it."""
    assert options.out is not None
    return options.out / f"masks_{options.split}"


def table(scores: "Scores", split: str) -> str:
    """Mean over images and pooled score of each metric, at both sizes."""
    from isic_smp.training.metrics import METRICS

    summary = scores.summary()
    lines = [
        "",
        f"{f'{split}, {len(scores.ids)} images':24}{'own size':>22}{f'{scores.map_side}×{scores.map_side} pixels':>24}",
        f"{'':24}{'per image':>12}{'pooled':>10}{'per image':>14}{'pooled':>10}",
    ]
    labels = {"dice": "Dice", "iou": "IoU"}
    for name in METRICS:
        own, own_pooled, net, net_pooled = (
            f"{summary[f'{name}_{kind}']:.4f}"
            for kind in ("per_image_own", "pooled_own", "per_image_net", "pooled_net")
        )
        lines.append(f"{labels.get(name, name):24}{own:>12}{own_pooled:>10}{net:>14}{net_pooled:>10}")
    if scores.loss is not None:
        lines.append(f"{'loss':46}{scores.loss:>14.4f}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.command(main, prog=PROG)
