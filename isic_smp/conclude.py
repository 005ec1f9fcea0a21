"""What follows training: the kept weights are scored, what goes with them is fitted, and the model is saved."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isic_smp.assessment.assess import assess
from isic_smp.assessment.fitting import fit_on_validation
from isic_smp.assessment.observations import Observations, score_and_observe
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.pairs import Pair
from isic_smp.inference.load import OUTPUT_FOLDER, save_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.scores import Scores
from isic_smp.prepare import Place, Prepared
from isic_smp.setup import Setup
from isic_smp.tracking.experiment_log import ExperimentLog
from isic_smp.training.history import Fit
from isic_smp.training.losses import make_loss
from isic_smp.training.recipe import Recipe


@dataclass(frozen=True)
class Result:
    """What an experiment gives back on rank 0."""

    output_dir: Path
    run_id: str
    fit: Fit
    validation: Scores
    test: Scores | None
    ui_hint: str


def conclude(
    recipe: Recipe,
    setup: Setup,
    data: LesionData,
    prepared: Prepared,
    fitted: Fit,
    *,
    diagnosis: Mapping[str, str],
    log: ExperimentLog,
    place: Place,
    output_dir: Path,
) -> Result:
    """Score the kept weights, fit what goes with them, save the model, and close the log.

    Args:
        recipe: what was learned.
        setup: whether test images are scored too, and how masks are read.
        data: whose validation and test images are scored.
        prepared: what was trained: its model holds the kept weights.
        fitted: its history.
        diagnosis: of image ids, where known; scores are grouped by it.
        log: of the run; closed here.
        place: whose device predicts.
        output_dir: gets the model.

    Raises:
        UserError: an image that cannot be read, or a folder that cannot be written.
    """
    # float32, whatever it was trained in: the exported program computes so, and its scores must be these.
    predictor = Predictor(prepared.model, prepared.preprocessing, device=place.device)
    loss = make_loss(recipe.loss).to(place.device)

    def scored(pairs: tuple[Pair, ...]) -> tuple[Scores, Observations]:
        return score_and_observe(
            predictor, pairs, loss=loss, batch_size=recipe.batch_size, binarize_masks=setup.binarize_masks
        )

    validation_scores, seen = scored(data.val)
    numbers = fit_on_validation(validation_scores, seen)
    validation = assess(validation_scores, seen, data, "val", fitted=numbers, diagnosis=diagnosis)
    test = (
        assess(*scored(data.test), data, "test", fitted=numbers, diagnosis=diagnosis)
        if setup.score_test and data.test
        else None
    )
    info = {
        "recipe": recipe.to_dict(),
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "description": data.describe(),
            **({"fold": str(setup.fold)} if setup.fold else {}),
        },
        "encoder_weights_used": prepared.weights_used,
        "kept_epoch": fitted.kept_epoch + 1,
        "validation": validation.scores.summary(),
        "test": test.scores.summary() if test else None,
        "assessment": {"validation": validation.summary(), "test": test.summary() if test else None},
        **numbers.to_facts(),
    }
    model_folder = output_dir / OUTPUT_FOLDER
    save_bundle(prepared.model, prepared.preprocessing, info, model_folder)
    log.finish(prepared.model, predictor, fitted, validation=validation, test=test, model_folder=model_folder)
    return Result(
        output_dir, log.run_id, fitted, validation.scores, test.scores if test else None, log.hint()
    )
