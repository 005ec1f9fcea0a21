"""What is found out before a study is begun: that its folder is its own, and that its networks can start.

A trial that fails stays failed, and one that finds another study's files takes them for its own.
"""

import json
from collections.abc import Collection
from pathlib import Path

from isic_smp.data.pipeline import SavedPipeline
from isic_smp.errors import UserError
from isic_smp.files import write_text
from isic_smp.inference.load import load_bundle
from isic_smp.models.families import parse_encoder_name
from isic_smp.models.weights import resolve_encoder_weights
from isic_smp.network import start_network
from isic_smp.sweeping.plan import Plan
from isic_smp.training.recipe import Recipe

NOTE = "study.json"
"""In a study's folder: its name, its MLflow run and where it is kept."""


class FolderNote:
    """Whose trials a folder holds. Call `check_name`, then `keep`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            kept = json.loads((folder / NOTE).read_text(encoding="utf-8"))
            self._kept = {key: str(kept[key]) for key in ("study", "run_id", "storage")}
        except (OSError, ValueError, KeyError, TypeError):
            self._kept = {}  # a new folder, or of a release that did not note it

    def check_name(self, name: str, studies: Collection[str]) -> None:
        """Refuse a study of another name, or one that is about to begin where another of its name has trials.

        Args:
            name: of the study.
            studies: names of those that are in its storage.

        Raises:
            UserError: so it is.
        """
        if self._kept and (self._kept["study"] != name or name not in studies):
            raise self._refusal()

    def keep(self, name: str, *, run_id: str, storage: str) -> None:
        """Note the study.

        Args:
            name: its name.
            run_id: its own run in MLflow.
            storage: where it is kept, without a password; only said, since one database may have several addresses.

        Raises:
            UserError: the folder is another study's, or cannot be written to.
        """
        if not self._kept:
            write_text(
                self.folder / NOTE, json.dumps({"study": name, "run_id": run_id, "storage": storage}) + "\n"
            )
        elif self._kept["run_id"] != run_id:
            raise self._refusal()

    def _refusal(self) -> UserError:
        return UserError(
            f"{self.folder} holds the trials of the study {self._kept['study']} in {self._kept['storage']}: choose another "
            "--output-dir"
        )


def check_starts(plan: Plan, *, is_demo: bool, tracking_uri: str | None) -> None:
    """Find what the trials start from: weights, models, teachers, a pipeline.

    Args:
        plan: of the study. Of a search the recipe that it builds on is looked at.
        is_demo: drawn pictures stand in for missing data, so ImageNet weights may be done without.
        tracking_uri: MLflow store of the models that it names.

    Raises:
        UserError: one of them is not there, or fits no network of the plan.
    """
    recipes = [plan.recipe(cell) for cell in plan.cells] if plan.is_grid else [plan.base]
    for spec in {spec for recipe in recipes for spec in recipe.teachers or ()}:
        load_bundle(spec, tracking_uri=tracking_uri)
    for file in {recipe.pipeline for recipe in recipes if recipe.pipeline is not None}:
        SavedPipeline(Path(file))
    for recipe in {_start(recipe): recipe for recipe in recipes}.values():
        if recipe.init_from is not None:
            start_network(recipe, tracking_uri=tracking_uri)
        elif not (is_demo and recipe.encoder_weights == "imagenet"):
            resolve_encoder_weights(recipe.encoder_weights, parse_encoder_name(recipe.encoder).timm_name)


def _start(recipe: Recipe) -> tuple:
    """What decides whether the first weights are there and fit."""
    if recipe.init_from is None:
        return recipe.encoder, recipe.encoder_weights
    names = ("init_from", "encoder", "encoder_depth", "skip_connections", "decoder_norm", "decoder_context")
    sizes = ("decoder_depth", "decoder_channels", "decoder_width")
    return tuple(getattr(recipe, name) for name in (*names, *sizes))
