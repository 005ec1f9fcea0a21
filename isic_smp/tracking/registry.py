"""The model registry: a run's model becomes a version of a named model, and one version the champion.

Which version is used is said by an alias (`models:/lesions@champion`). It moves to another version only
on evidence: the scores of both on the same validation images, image by image. Validation, not test:
promoting chooses a model, and what has helped to choose can no longer tell how good the chosen one is.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isic_smp.errors import UserError
from isic_smp.store import existing_store, one_line, without_password
from isic_smp.tracking.evidence import MissingEvidence, compare_evidence, in_words, read_evidence
from isic_smp.tracking.registry_card import describe, version_tags, with_test_scores

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import Model

CHAMPION = "champion"
ALIAS = re.compile(r"[\w-]+", re.ASCII)
NAME = re.compile(r"[^/:@\\'\"\s][^/:@\\'\"]*")  # of these, MLflow itself refuses / and : only


@dataclass(frozen=True)
class Promotion:
    """What `promote` did."""

    name: str
    alias: str
    version: str
    former: str | None
    """The version that had the alias before; None where there was none."""
    grounds: str
    """One line: the comparison, or why there is none."""


def check_name(name: str) -> None:
    """Refuse a name that cannot be registered.

    Raises:
        UserError: it is empty, or holds a character that `models:/NAME@ALIAS` or a search trips over.
    """
    if not NAME.fullmatch(name):
        raise UserError(
            f"a model cannot be registered as {name!r}: expected a name without / : @ \\ and quotes"
        )


def check_alias(alias: str) -> None:
    """Refuse an alias that MLflow would not take, or would take for a version.

    Raises:
        UserError: so it is.
    """
    if not ALIAS.fullmatch(alias) or alias == "latest" or re.fullmatch(r"v\d+", alias):
        raise UserError(
            f"no version can have the alias {alias!r}: expected letters, digits, _ and - alone, not latest and not v1"
        )


class Registry:
    """The registry of one MLflow store.

    Every method raises UserError where the store cannot be reached, or refuses; making one does where it is not there.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        from mlflow import MlflowClient

        self.uri = existing_store(tracking_uri)
        self.client: MlflowClient = MlflowClient(self.uri)

    def register(self, run_id: str, name: str) -> "ModelVersion":
        """Make the model of a finished run a version of `name`; a run that is one already stays that version.

        Raises:
            UserError: no such run, it is unfinished or has no model, or a name that MLflow does not take.
        """
        from mlflow.exceptions import MlflowException

        check_name(name)
        try:
            known = self.client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
            if known:
                return known[0]
            run = self.client.get_run(run_id)
            if run.info.status != "FINISHED":
                raise UserError(f"run {run_id} is {run.info.status}: only a finished run can be registered")
            model_id = self._model_id(run_id)
            location = self.client.get_logged_model(model_id).artifact_location
            metadata = with_test_scores(self._description(location).metadata or {}, run)
            self._create_name(name)
            return self.client.create_model_version(
                name,
                source=location,  # `models:/ID` MLflow would look up in its default store, not in this one
                run_id=run_id,
                model_id=model_id,
                tags=version_tags(metadata, run),
                description=describe(metadata, run),
            )
        except MlflowException as error:
            raise self._refused(f"register run {run_id} as {name}", error) from None

    def promote(
        self, name: str, *, version: str | None = None, alias: str = CHAMPION, force: bool = False
    ) -> Promotion:
        """Give `alias` to a version, if it is no worse than the version that has it.

        Both must have been scored on the same validation images. Worse is a lower mean Dice, at the
        images' own sizes. The first holder of an alias only needs scores.

        Args:
            name: of the registered model.
            version: the candidate. Default: the newest.
            alias: who the candidate is to become.
            force: promote in any case; the version notes that it was forced.

        Raises:
            UserError: an alias that cannot be given; or the candidate is worse, or nothing shows that it is not, and
                `force` is off.
        """
        from mlflow.exceptions import MlflowException

        check_alias(alias)
        try:
            candidate = self._version(name, version)
            former = self._holder(name, alias)
            number, before = str(candidate.version), str(former.version) if former else None
            if number == before:
                return Promotion(name, alias, number, before, f"it is the {alias} already")
            grounds, objection = self._judge(candidate, former)
            if objection and not force:
                keeps = f"; version {before} stays" if before else ""
                raise UserError(
                    f"version {number} of {name} does not become {alias}{keeps}: {objection} "
                    "(--force promotes it nevertheless)"
                )
            if objection:
                grounds = f"forced, though {objection}"
            self._move(name, alias, candidate, grounds)
        except MlflowException as error:
            raise self._refused(f"promote {name}", error) from None
        return Promotion(name, alias, number, before, grounds)

    def versions(self, name: str | None = None) -> "list[ModelVersion]":
        """All versions of all names, or of one; by name, newest first; with their aliases.

        Raises:
            UserError: there is no model `name`.
        """
        from mlflow.exceptions import MlflowException

        try:
            names = [name] if name else self._names()
            found = []
            for one in sorted(names):
                aliases = self.client.get_registered_model(one).aliases
                for version in self._all(one):
                    # A search leaves the aliases out.
                    version.aliases = [
                        alias for alias, n in aliases.items() if str(n) == str(version.version)
                    ]
                    found.append(version)
        except MlflowException as error:
            raise self._refused(f"list {name or 'the models'}", error) from None
        return found

    def _move(self, name: str, alias: str, version: "ModelVersion", grounds: str) -> None:
        """Give `alias` to the version, with a note why."""
        number = str(version.version)
        self.client.set_model_version_tag(name, number, f"promotion.{alias}", grounds)
        self.client.set_registered_model_alias(name, alias, number)

    def _judge(self, candidate: "ModelVersion", former: "ModelVersion | None") -> tuple[str, str | None]:
        """What speaks for the candidate, and what against it (None: nothing)."""
        try:
            scores = read_evidence(self.client, candidate)
            if former is None:
                return f"the first one, validation Dice {scores.dice.mean():.4f}", None
            paired = compare_evidence(scores, read_evidence(self.client, former))
        except MissingEvidence as missing:
            return "", str(missing)
        words = in_words(paired, former.version)
        return words, f"it is worse: {words}" if paired.difference < 0 else None

    def _model_id(self, run_id: str) -> str:
        """The run's model with both flavours; made from its saved weights where an older isic_smp logged another."""
        from isic_smp.inference.load import load_bundle
        from isic_smp.tracking.mlflow_model import save_mlflow_model
        from isic_smp.tracking.models import logged_models, upload_model

        for model in logged_models(self.client, run_id):
            if str(model.status) == "READY":
                flavors = self._description(model.artifact_location).flavors
                if "pytorch" in flavors and "model_code_path" in flavors.get("python_function", {}):
                    return str(model.model_id)
        bundle = load_bundle(run_id, tracking_uri=self.uri)
        with tempfile.TemporaryDirectory() as folder:
            save_mlflow_model(bundle.model, bundle.preprocessing, bundle.info, Path(folder) / "model")
            return upload_model(self.client, run_id, Path(folder) / "model")

    def _description(self, location: str) -> "Model":
        """The MLmodel file of the model at `location`."""
        from mlflow.artifacts import download_artifacts
        from mlflow.models import Model

        with tempfile.TemporaryDirectory() as folder:
            return Model.load(
                download_artifacts(f"{location}/MLmodel", dst_path=folder, tracking_uri=self.uri)
            )

    def _create_name(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _version(self, name: str, version: str | None) -> "ModelVersion":
        self.client.get_registered_model(name)  # says so where there is none
        if version is not None:
            return self.client.get_model_version(name, version)
        versions = self._all(name)
        if not versions:
            raise UserError(f"{name} has no version: register a run first")
        return versions[0]

    def _holder(self, name: str, alias: str) -> "ModelVersion | None":
        version = self.client.get_registered_model(name).aliases.get(alias)
        return self.client.get_model_version(name, str(version)) if version is not None else None

    def _names(self) -> list[str]:
        found = self.client.search_registered_models()
        names = [model.name for model in found]
        while found.token:
            found = self.client.search_registered_models(page_token=found.token)
            names += [model.name for model in found]
        return names

    def _all(self, name: str) -> "list[ModelVersion]":
        """The versions of a name, newest first."""
        found = self.client.search_model_versions(f"name = '{name}'", max_results=10_000)
        return sorted(found, key=lambda version: -int(version.version))

    def _refused(self, what: str, error: Exception) -> UserError:
        return UserError(f"cannot {what} in {without_password(self.uri)}: {one_line(error)}")
