"""Makes the shipped model from a run.

    python -m isic_smp.pretrained.make RUN DIR_OF_ISIC2016
    python -m isic_smp.pretrained.make isic2016 DIR_OF_ISIC2016 --measured-on DIR    # the one that is shipped, masks finished as now

Kernels go to 16 bits (half the size, no visible change of a mask), normalisation layers stay in 32. The model card
beside them is written from what the shipped files themselves score, not from the run's own figures.
"""

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from isic_smp import cli
from isic_smp.assessment.assess import assess
from isic_smp.assessment.fitting import fit_on_validation
from isic_smp.assessment.observations import score_and_observe
from isic_smp.data.cache import open_pixel_cache
from isic_smp.data.diagnoses import read_diagnoses
from isic_smp.data.isic2016 import LesionData, load_isic2016
from isic_smp.data.source import default_cache_dir
from isic_smp.errors import UserError
from isic_smp.inference.expected_iou import FAILURE_IOU
from isic_smp.inference.faintest import RAISED, WRAPPED, faintest
from isic_smp.inference.load import Bundle, load_bundle, save_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.inference.scores import Scores
from isic_smp.inference.scoring import score
from isic_smp.models.cost import cost
from isic_smp.models.shipped import shipped_folder
from isic_smp.stats import bootstrap_means, percentile_interval

PROG = "python -m isic_smp.pretrained.make"
CARD = Path(__file__).parent / "card.md"


@dataclass(frozen=True)
class Summary:
    """Per-image mean of a score, and its 95 % interval over images."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})".replace("0.", ".")


@dataclass(frozen=True)
class Options:
    """What is shipped, and what its card scores it on."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run's --output-dir."""
    data_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR_OF_ISIC2016")]
    """The folder of the four ISIC 2016 folders."""
    measured_on: Path | None = None
    """The folder that the model was trained on: what is measured on its images, after training, is measured anew. For a
    model whose release finished masks otherwise."""


def main() -> None:
    """Write `pretrained/isic2016` and its model card."""
    options = cli.parse(Options, prog=PROG, description=str(__doc__))
    trained = load_bundle(options.run)
    if options.measured_on is not None:
        trained = measured_anew(trained, load_isic2016(options.measured_on), cache_dir=default_cache_dir())
    ship(trained, options.data_dir)
    size = sum(file.stat().st_size for file in shipped_folder().iterdir())
    print(f"{shipped_folder()}: {size / 1e6:.2f} MB")


def measured_anew(trained: Bundle, data: LesionData, *, cache_dir: Path) -> Bundle:
    """The model with faint lesions treated as the default recipe does, and with numbers of the images it was trained on.

    Raises:
        UserError: the data are others.
    """
    known = trained.info["data"]["fingerprint"]
    if data.fingerprint != known:
        raise UserError(
            f"{data.root} holds {data.describe()}, fingerprint {data.fingerprint}: expected the images that the model was "
            f"trained on, {trained.info['data']['description']}, fingerprint {known}"
        )
    settings = trained.preprocessing
    learned = open_pixel_cache(data.train, settings.size, cache_dir=cache_dir)
    least, wrapped = faintest(learned, RAISED, WRAPPED)
    settings = dataclasses.replace(settings, least_contrast=least, wrap_below=wrapped)
    predictor, diagnosis = Predictor(trained.model, settings), read_diagnoses(data.root) or {}
    scores, seen = score_and_observe(predictor, data.val)
    numbers = fit_on_validation(scores, seen)
    assessed = {
        "validation": assess(scores, seen, data, "val", fitted=numbers, diagnosis=diagnosis),
        "test": assess(
            *score_and_observe(predictor, data.test), data, "test", fitted=numbers, diagnosis=diagnosis
        ),
    }
    info = {
        **trained.info,
        "recipe": dict(trained.info["recipe"]) | {"raise_contrast": True, "wrap_faint": True},
        "assessment": {name: found.summary() for name, found in assessed.items()},
        **numbers.to_facts(),
    }
    return dataclasses.replace(trained, preprocessing=settings, info=info)


def ship(trained: Bundle, data_dir: Path) -> None:
    """Save the model in 16 bits in the package, with its card."""
    kernels = [parameter for parameter in trained.model.parameters() if parameter.ndim > 1]
    for kernel in kernels:
        kernel.data = kernel.data.half().float()  # what the shipped file will hold is what is scored
    data = load_isic2016(data_dir)
    predictor = Predictor(trained.model, trained.preprocessing)
    scores = {name: score(predictor, getattr(data, name)) for name in ("val", "test")}
    recipe = dict(trained.info["recipe"])
    # A path says nothing elsewhere; the file's name says what it was.
    recipe["encoder_weights"] = Path(recipe["encoder_weights"]).name
    recipe["teachers"] = [Path(teacher).name for teacher in recipe.get("teachers") or ()] or None
    info = {
        **trained.info,
        "recipe": recipe,
        "encoder_weights_used": recipe["encoder_weights"],
        "validation": scores["val"].summary(),
        "test": scores["test"].summary(),
    }
    text = card(dataclasses.replace(trained, info=info), scores)
    for kernel in kernels:
        kernel.data = kernel.data.half()
    save_bundle(trained.model, trained.preprocessing, info, shipped_folder())
    (shipped_folder() / "README.md").write_text(text, encoding="utf-8")
    for file in shipped_folder().iterdir():
        file.chmod(0o644)  # the package is read by others than who made it


def card(shipped: Bundle, scores: dict[str, Scores]) -> str:
    """The model card: `card.md` with its figures filled in."""
    price = cost(shipped.model, shipped.preprocessing.size)
    values = {
        "encoder": shipped.info["recipe"]["encoder"],
        "encoder_weights": shipped.info["recipe"]["encoder_weights"],
        "parameters": f"{price.parameters / 1e6:.2f}",
        "multiply_adds": f"{price.multiply_adds / 1e6:.0f}",
        "size": str(shipped.preprocessing.size),
        "prediction": _prediction(shipped.preprocessing),
        "data": shipped.info["data"]["description"],
        "date": datetime.now(UTC).date().isoformat(),
        "recipe": json.dumps(shipped.info["recipe"], indent=1),
    }
    for name, found in scores.items():
        values[f"{name}_images"] = str(len(found.ids))
        values[f"{name}_failed"] = f"{100 * np.mean(found.own['iou'] < FAILURE_IOU):.1f} %"
        for metric in ("dice", "iou"):
            values[f"{name}_{metric}"] = str(summarised(found.own[metric]))
    text = CARD.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"<{name}>", value)
    return text


def _prediction(preprocessing: Preprocessing) -> str:
    flips = "averaged over eight flips and turns" if preprocessing.test_time_flips else "one pass"
    looks = ", the part around the lesion looked at twice" if preprocessing.second_look else ""
    looks += ", with more contrast where it is faint" if looks and preprocessing.least_contrast else ""
    piece = ", the largest piece kept" if preprocessing.largest_piece else ""
    outline = ", narrow bays of the outline closed" if preprocessing.close_bays else ""
    outline += ", drawn around all of a faint lesion" if preprocessing.wrap_below else ""
    return f"{flips}{looks}{piece}{outline}"


def summarised(values: np.ndarray) -> Summary:
    """Mean and bootstrap interval of scores, float (N,)."""
    return Summary(float(values.mean()), *percentile_interval(bootstrap_means(values)))


if __name__ == "__main__":
    cli.command(main, prog=PROG)
