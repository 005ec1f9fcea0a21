"""What an experiment writes into MLflow, and when. The pictures and keys are laid out for MLflow's UI."""

import dataclasses
import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import nn

from isic_smp.assessment.assess import Assessment
from isic_smp.data.cache import PixelCache
from isic_smp.data.isic2016 import LesionData
from isic_smp.errors import Stopped, UserError
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.inference.scores import Kind, Scores, write_columns
from isic_smp.store import prepare_store
from isic_smp.tracking.assessment_plots import draw_assessment
from isic_smp.tracking.case_pictures import draw_case
from isic_smp.tracking.environment import run_tags
from isic_smp.tracking.figures import case_grid, overlay, panel
from isic_smp.tracking.models import log_segmentation_model
from isic_smp.tracking.plots import curves, dice_histogram
from isic_smp.tracking.run_log import RunLog
from isic_smp.tracking.run_note import RunNote
from isic_smp.tracking.views import View
from isic_smp.training.history import Epoch, Fit
from isic_smp.training.recipe import Recipe

logger = logging.getLogger(__name__)

CASES = [f"case_{n}" for n in range(1, 5)]
"""Validation images drawn under the same keys in every run."""

EXTREMES: tuple[Kind, ...] = ("best", "median", "worst")
"""Test images shown, four of each; four panels fill a square."""

HEADLINES = (
    "dice_per_image_own",
    "iou_per_image_own",
    "sensitivity_per_image_own",
    "specificity_per_image_own",
    "loss",
    "worst_group_iou_own",
)
"""Final scores that get a chart in the section that is seen first; twenty there would hide the pictures."""

ONCE = 0
"""Step of what is logged once. At one step in all runs, the UI draws bars and lays pictures side by side."""

PICTURES = 5
"""How often those are drawn over a run at most, besides the first and the last epoch."""

_VIEW = View(
    metrics=("test/dice_per_image_own", "test/iou_per_image_own", "test/loss"),
    params=("encoder", "freeze", "seed"),
    grid=tuple(f"final/{case}" for case in CASES),
    pictures={**{f"val/{case}": 1 for case in CASES}, **{f"test/{kind}": ONCE for kind in EXTREMES}},
)


class ExperimentLog:
    """One experiment's run in MLflow, from its settings to its model. Make one with `start`."""

    def __init__(
        self,
        log: RunLog,
        recipe: Recipe,
        data: LesionData,
        preprocessing: Preprocessing,
        *,
        binarize_masks: bool,
        output_dir: Path,
    ) -> None:
        self.log, self.recipe, self.data, self.preprocessing = log, recipe, data, preprocessing
        self.binarize_masks, self.output_dir = binarize_masks, output_dir
        self.run_id = log.run_id
        self._cases: list[tuple[np.ndarray, np.ndarray]] = []

    @classmethod
    def start(
        cls,
        recipe: Recipe,
        data: LesionData,
        preprocessing: Preprocessing,
        *,
        validation: PixelCache,
        binarize_masks: bool,
        output_dir: Path,
        experiment: str,
        run_name: str,
        tracking_uri: str | None,
        offline: bool,
        parent_run_id: str | None,
        resume: bool,
        clear: Callable[[], None],
        tags: Mapping[str, str],
    ) -> "ExperimentLog":
        """Create the run (or go on with the one noted in `output_dir`) and log all that is known beforehand.

        `clear` is called where another run begins, before it does: what lies in `output_dir` is not its own.

        Raises:
            UserError: the store refuses or does not answer.
        """
        uri = None if offline else prepare_store(tracking_uri)
        note = RunNote(output_dir)
        if note.begin(resume=resume):
            clear()
        log = RunLog.start(
            experiment=experiment,
            run_name=run_name,
            params=recipe.to_dict(),
            tags={**run_tags(), "data": data.describe(), "data_fingerprint": data.fingerprint, **tags},
            journal=note.journals,
            tracking_uri=uri,
            run_id=note.run_id,
            key=note.key,
            parent_run_id=parent_run_id,
            view=_VIEW,
        )
        try:
            note.write(log.run_id)
            made = cls(log, recipe, data, preprocessing, binarize_masks=binarize_masks, output_dir=output_dir)
            made._log_datasets()
            made._cases = _spread_by_area(validation, len(CASES))
        except BaseException:
            log.abandon()
            raise
        return made

    def hint(self) -> str:
        """The command and the address that show this run."""
        return self.log.ui_hint()

    def epoch(self, record: Epoch, model: nn.Module) -> None:
        """Log an epoch's figures, and every few epochs the same validation images with the model's contours."""
        step = record.epoch + 1
        self.log.log_metrics(
            {
                "train/loss": record.train_loss,
                "train/dice": record.train_dice,
                "train/iou": record.train_iou,
                "val/loss": record.val_loss,
                "val/dice": record.val_dice,
                "val/iou": record.val_iou,
                "lr": record.lr,
                "images_per_second": record.images_per_second,
            },
            step=step,
        )
        if has_pictures(step, self.recipe.epochs):
            self._draw_cases(model, "val", step)

    def finish(
        self,
        model: nn.Module,
        predictor: Predictor,
        fitted: Fit,
        *,
        validation: Assessment,
        test: Assessment | None,
        model_folder: Path,
    ) -> None:
        """Log final scores, pictures, tables and the model, and end the run.

        What an earlier run left in the output folder is replaced, or removed where this one has nothing of the kind.
        """
        self.log.log_metrics(by_section("final", _numbers(validation)), step=ONCE)
        self._draw_cases(model, "final", ONCE)
        self.log.set_tags({"kept_epoch": fitted.kept_epoch + 1, "stopped_early": fitted.stopped_early})
        figures = self.output_dir / "figures"
        shutil.rmtree(figures, ignore_errors=True)
        figures.mkdir(exist_ok=True)
        curves([dataclasses.asdict(record) for record in fitted.history], figures / "curves.png")
        self._log_scores("validation", validation)
        if test is None:
            for file in self._score_files("test"):
                file.unlink(missing_ok=True)
        else:
            self.log.log_metrics(by_section("test", _numbers(test)), step=ONCE)
            self._log_scores("test", test)
            dice_histogram(test.scores.own["dice"], figures / "test_dice.png")
            draw_assessment(test, figures, "test")
            self._draw_extremes(predictor, test.scores)
        self.log.log_artifact(figures, "figures")
        log_segmentation_model(self.log, model, self.preprocessing, model_folder)
        self.log.finish()

    def fail(self, error: BaseException) -> None:
        """End the run as killed (interrupted, or stopped on purpose) or failed, with the reason as a tag.

        What goes wrong after the run's end changes nothing in it. Nor does this raise, where the journal cannot be
        written any more: the reason matters more.
        """
        if self.log.is_over:
            return
        reason = " ".join(str(error).split()) or type(error).__name__
        try:
            self.log.set_tags({"stopped_by": f"{type(error).__name__}: {reason}"[:500]})
            self.log.finish("KILLED" if isinstance(error, KeyboardInterrupt | Stopped) else "FAILED")
        except UserError as unwritten:
            logger.warning("the run is not marked as ended: %s", unwritten)
            if not self.log.is_over:
                self.log.abandon()

    def _log_datasets(self) -> None:
        # MLflow would take a fold, or data without a group, for the whole: their digests begin alike.
        _, *part = self.data.fingerprint.split("-", maxsplit=1)
        for context, pairs in (
            ("train", self.data.train),
            ("validation", self.data.val),
            ("test", self.data.test),
        ):
            self.log.log_dataset(
                "-".join([self.data.name, *part]),
                source=self.data.name,
                digest=self.data.fingerprint,
                profile={"images": len(pairs)},
                context=context,  # type: ignore[arg-type]
            )

    def _draw_cases(self, model: nn.Module, prefix: str, step: int) -> None:
        predictor = Predictor(model, self.preprocessing, device=next(model.parameters()).device)
        probabilities = predictor.predict([image for image, _ in self._cases])
        for name, (image, mask), probability in zip(CASES, self._cases, probabilities, strict=True):
            picture = overlay(image, mask, probability, threshold=self.preprocessing.threshold)
            self.log.log_image(picture, f"{prefix}/{name}", step)

    def _draw_extremes(self, predictor: Predictor, test: Scores) -> None:
        """Panels of the best, median and worst test images."""
        pairs = {pair.id: pair for pair in self.data.test}
        for kind in EXTREMES:
            panels = [
                draw_case(panel, pairs[name], predictor, name, binarize_masks=self.binarize_masks)
                for name in test.picks(kind, 4)
            ]
            self.log.log_image(case_grid(panels), f"test/{kind}", ONCE)

    def _score_files(self, split: str) -> tuple[Path, Path]:
        return self.output_dir / f"{split}_scores.csv", self.output_dir / f"{split}_assessment.json"

    def _log_scores(self, split: str, found: Assessment) -> None:
        table, summary = self._score_files(split)
        write_columns(found.table(), table)
        summary.write_text(json.dumps(found.to_dict(), indent=1), encoding="utf-8")
        self.log.log_artifact(table, "scores")
        self.log.log_artifact(summary, "scores")
        self.log.log_table(found.table(), f"{split}_scores")


def _numbers(found: Assessment) -> dict[str, float]:
    return found.scores.summary() | found.summary()


def has_pictures(step: int, epochs: int) -> bool:
    """Whether pictures are drawn after epoch `step`, counted from 1, of a run of `epochs`."""
    return step == 1 or step == epochs or step % math.ceil(epochs / PICTURES) == 0


def by_section(section: str, scores: Mapping[str, float]) -> dict[str, float]:
    """All scores by metric name: the headlines in `section`, the others where they are out of the way."""
    return {
        f"{section}/{name}" if name in HEADLINES else f"detail/{section}_{name}": value
        for name, value in scores.items()
    }


def _spread_by_area(cache: PixelCache, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """`count` images with masks, from small lesions to large: the same ones in every run on the same data."""
    areas = [cache.read([i])[1].mean() for i in range(len(cache))]
    order = np.argsort(areas, kind="stable")
    places = np.linspace(0.1, 0.9, count) * (len(order) - 1)
    images, masks = cache.read(order[places.round().astype(int)])
    return list(zip(images, masks, strict=True))
