"""Test scores of a study's chosen trials: computed once, after the study is finished."""

import json
from collections.abc import Sequence

import optuna

from isic_smp.data.isic2016 import LesionData
from isic_smp.inference.load import load_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.scores import Scores
from isic_smp.inference.scoring import score
from isic_smp.sweeping.results import TEST, TrialResult
from isic_smp.sweeping.study_run import StudyRun
from isic_smp.training.device import choose_device
from isic_smp.training.losses import make_loss

FILE = "test_scores.csv"
LOGGED = "logged."
"""User attributes of the study: that a trial's test scores are in MLflow too, by the trial's number."""


def score_tests(
    study: optuna.Study,
    results: Sequence[TrialResult],
    data: LesionData,
    *,
    run: StudyRun,
    binarize_masks: bool,
    device: str,
) -> None:
    """Score the test images with each trial's model that has not been scored yet.

    The scores go to the study, to `test_scores.csv` in the trial's folder (where `compare` finds them)
    and to the trial's run in MLflow; what did not get there is sent again the next time.

    Raises:
        UserError: a trial's model is neither in its folder nor in MLflow.
    """
    for result in results:
        table = result.folder / FILE
        known, logged = f"{TEST}{result.number}", f"{LOGGED}{result.number}"
        if known not in study.user_attrs or not table.exists():
            scores = _score(result, data, run=run, binarize_masks=binarize_masks, device=device)
            scores.to_csv(table)
            study.set_user_attr(known, json.dumps(scores.summary()))
        summary = json.loads(study.user_attrs[known])
        if logged not in study.user_attrs and run.add_scores(result.run_id, "test", summary, table):
            study.set_user_attr(logged, True)


def _score(
    result: TrialResult, data: LesionData, *, run: StudyRun, binarize_masks: bool, device: str
) -> Scores:
    bundle = load_bundle(result.model, tracking_uri=run.tracking_uri)
    recipe = bundle.info["recipe"]
    return score(
        Predictor(bundle.model, bundle.preprocessing, device=choose_device(device)),
        data.test,
        loss=make_loss(recipe["loss"]),
        batch_size=recipe["batch_size"],
        binarize_masks=binarize_masks,
    )
