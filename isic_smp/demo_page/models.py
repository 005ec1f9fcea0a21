"""The models a visitor can choose from, each loaded when it is first wanted."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from isic_smp.errors import UserError
from isic_smp.inference.expected_iou import ExpectedIoU
from isic_smp.inference.from_mlflow import ALIAS, RUN, VERSION
from isic_smp.inference.load import OUTPUT_FOLDER, load_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.models.shipped import NAME as SHIPPED


@dataclass(frozen=True)
class Choice:
    """A model by the name it has on the page."""

    spec: str
    """As `load_bundle` takes it."""
    label: str


class Models:
    """Models to choose from.

    Args:
        choices: at least one.
        start: specs that are chosen at first.
        device: where all of them run.
        tracking_uri: MLflow store of those that are registered.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        start: Sequence[str],
        *,
        device: torch.device,
        tracking_uri: str | None = None,
    ) -> None:
        self.choices = choices
        self.start = start
        self._device = device
        self._tracking_uri = tracking_uri
        self._loaded: dict[str, tuple[Predictor, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def label(self, spec: str) -> str:
        """The model's name on the page."""
        return next((choice.label for choice in self.choices if choice.spec == spec), spec)

    def predictor(self, spec: str) -> Predictor:
        """The model, ready to predict.

        Raises:
            UserError: it is none of the choices, or cannot be loaded.
        """
        return self._load(spec)[0]

    def score(self, spec: str) -> float | None:
        """Mean Dice on the validation images of the model's own training, where it is known."""
        return self._load(spec)[1].get("validation", {}).get("dice_per_image_own")

    def expected_iou(self, spec: str) -> ExpectedIoU | None:
        """What was fitted on the same images to tell how good a mask is; None where nothing was."""
        return ExpectedIoU.from_facts(self._load(spec)[1])

    def _load(self, spec: str) -> tuple[Predictor, dict[str, Any]]:
        # Specs come back from the browser: nothing but what was offered may reach the disk.
        if all(choice.spec != spec for choice in self.choices):
            raise UserError(f"{spec!r} is none of the models to choose from")
        with self._lock:
            if spec not in self._loaded:
                bundle = load_bundle(spec, tracking_uri=self._tracking_uri)
                predictor = Predictor(bundle.model, bundle.preprocessing, device=self._device)
                self._loaded[spec] = predictor, bundle.info
            return self._loaded[spec]


def named_choices(specs: Sequence[str]) -> list[Choice]:
    """Choices for specs as given on the command line, each under a name of its own."""
    specs = list(dict.fromkeys(specs))
    names = [_short_name(spec) for spec in specs]
    return [
        Choice(spec, name if names.count(name) == 1 else spec)
        for spec, name in zip(specs, names, strict=True)
    ]


def registered_choices(tracking_uri: str | None) -> tuple[list[Choice], list[str]]:
    """Every registered version, by name and newest first, then the package's own, and the spec to start with.

    That is a version with an alias, a champion before others; else the newest one; else the package's own.

    Raises:
        UserError: the store cannot be reached, or one that was named is not there.
    """
    from isic_smp.store import NoStore
    from isic_smp.tracking.registry import CHAMPION, Registry

    try:
        versions = Registry(tracking_uri).versions()
    except NoStore:
        if tracking_uri is not None:  # it was asked for
            raise
        versions = []
    shipped = Choice(SHIPPED, f"{SHIPPED} (comes with the package)")
    if not versions:
        return [shipped], [SHIPPED]
    choices = []
    for version in versions:
        aliases = ", ".join(sorted(version.aliases))
        label = f"{version.name}, version {version.version}" + (f" ({aliases})" if aliases else "")
        choices.append(Choice(f"models:/{version.name}/{version.version}", label))
    ranked = max(versions, key=lambda v: (CHAMPION in v.aliases, bool(v.aliases), int(v.version)))
    return [*choices, shipped], [f"models:/{ranked.name}/{ranked.version}"]


def _short_name(spec: str) -> str:
    if match := VERSION.fullmatch(spec):
        return f"{match['name']}, version {match['version']}"
    if match := ALIAS.fullmatch(spec):
        return f"{match['name']} ({match['alias']})"
    if match := RUN.fullmatch(spec):
        return f"run {match['run_id'][:8]}"
    path = Path(spec).absolute()
    path = path.parent if path.is_file() else path
    return path.parent.name if path.name == OUTPUT_FOLDER else path.name
