"""What accuracy costs: our networks, smp's U-Net on the whole MobileNet, trained on the same images, the shipped model.

python benchmarks/networks.py --data-dir DIR --encoder-weights FILE --work-dir DIR [--seeds 3] [--only small]
python benchmarks/networks.py … --without tones close_bays sharp_views      # as the presets were before these

Each network is trained by the preset that is named with it (the U-Net by the default one, on the same batches) and
scored on the test images, each at its own size: in one look at the frame, with a second look at the part around the
lesion, with more contrast for faint ones in it, and with these wrapped besides; each as it is, and averaged over the
eight flips and turns. A run that is done is not trained again, so the command can be interrupted. The figures go into
docs/networks.json, in the place of the same networks' earlier ones, and docs/images/networks.png is drawn of all that
stands there.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev

from common import NoProgress, cpu, report, silent
from networks_kept import ONE_LOOK, Row, as_table, draw, keep

NETWORKS: dict[str, list[str]] = {
    "fine-tuned": ["--recipe", "default"],
    "frozen encoder": ["--recipe", "default", "--freeze"],
    "frozen encoder, wide decoder": ["--recipe", "default", "--freeze", "--decoder-width", "1.5"],
    "fine-tuned, four steps": ["--recipe", "default", "--decoder-depth", "4"],
    "frozen encoder, four steps": ["--recipe", "default", "--decoder-depth", "4", "--freeze"],
    "small": ["--recipe", "small"],
    "small, taught": ["--recipe", "small"],
    "smp.Unet, whole MobileNetV2": [],
    "the shipped model": [],
}
LATER = {
    "tones": (0.0, ["--tones", "0"]),
    "close_bays": (False, ["--no-close-bays"]),
    "sharp_views": (False, ["--no-sharp-views"]),
}
"""What the presets did not have when earlier figures were measured: the setting without it, and the options that say so."""
_LOOKS: dict[str, dict[str, bool | float]] = {
    ONE_LOOK: {"second_look": False, "wrap_below": 0.0},
    "two looks": {"second_look": True, "least_contrast": 0.0, "wrap_below": 0.0},
    "two looks, contrast raised": {"second_look": True, "wrap_below": 0.0},
    "two looks, faint ones raised and wrapped": {"second_look": True},
}
WAYS = {
    f"{way}{ending}": looks | {"test_time_flips": flips}
    for ending, flips in (("", False), (", flips", True))
    for way, looks in _LOOKS.items()
}
"""How a trained network is asked; what is faint, its own training pictures say."""
TAUGHT = ", taught"
"""Ends the names of networks that learn from the fine-tuned ones, of all seeds, as well as from the masks."""
UNET = "smp.Unet, whole MobileNetV2"
COMES_WITH_IT = "the shipped model"
"""Is not trained here, and of one seed."""
UNET_ENCODER = "trunc-mobilenetv2_100-s6-same"


def main() -> None:
    """Train what is missing, score, print, keep and draw."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    words.add_argument("--encoder-weights", type=Path, required=True)
    words.add_argument("--work-dir", type=Path, required=True)
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--unet-seeds", type=int, help="of the U-Net, which takes twice as long")
    words.add_argument("--epochs", type=int, help="in place of the presets' own")
    words.add_argument("--unet-epochs", type=int, help="of the U-Net, in place of the default preset's own")
    words.add_argument("--without", nargs="*", choices=list(LATER), default=[], help="train without these")
    words.add_argument("--only", nargs="*", choices=list(NETWORKS), default=list(NETWORKS))
    words.add_argument("--unet", type=Path, help=argparse.SUPPRESS)
    words.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = words.parse_args()
    if options.unet is not None:
        train_unet(options)
        return
    rows = []
    for name in options.only:
        seeds = options.unet_seeds if name == UNET and options.unet_seeds else options.seeds
        seeds = 1 if name == COMES_WITH_IT else seeds
        models = [trained(options, name, seed) for seed in range(seeds)]
        rows.append(row(options, name, models))
    title = "Test images, each at its own size; mean ± standard deviation over seeds"
    report("networks", {title: as_table(rows)})
    draw(keep(rows))


def trained(options: argparse.Namespace, name: str, seed: int) -> Path:
    """The saved model of a network, trained now or before."""
    from isic_smp.models.shipped import shipped_folder

    place = options.work_dir.resolve() / "networks"
    without = "".join(f"-without-{setting}" for setting in sorted(options.without))
    folder = place / f"{name.replace(' ', '-').replace(',', '').replace('.', '-')}{without}-s{seed}"
    place.mkdir(parents=True, exist_ok=True)
    if name == COMES_WITH_IT:  # not where it lies: the scores are kept beside a model
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(shipped_folder(), folder / "model")
        return folder / "model"
    if not (folder / "model" / "isic_smp.json").exists():
        if name == UNET:
            me = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]]
            command = [*me, "--unet", str(folder), "--seed", str(seed)]
        else:
            command = [
                *[sys.executable, "-m", "isic_smp.run", *NETWORKS[name], "--seed", str(seed)],
                *["--data-dir", str(options.data_dir.resolve()), "--output-dir", str(folder), "--resume"],
                *["--encoder-weights", str(options.encoder_weights.resolve())],
                *["--cache-dir", str(options.work_dir.resolve() / "cache")],
                *(["--epochs", str(options.epochs)] if options.epochs else []),
                *(word for setting in options.without for word in LATER[setting][1]),
            ]
            if name.endswith(TAUGHT):
                teachers = [trained(options, "fine-tuned", number) for number in range(options.seeds)]
                command += ["--teachers", *map(str, teachers)]
        with (place / "log.txt").open("a") as log:
            subprocess.run(command, cwd=place, check=True, stdout=log, stderr=log, env={**os.environ})
    return folder / "model"


def train_unet(options: argparse.Namespace) -> None:
    """The U-Net of smp itself by the default preset: same batches, loss, optimizer and schedule; nothing is cut off."""
    import segmentation_models_pytorch as smp
    import torch

    import isic_smp
    from isic_smp.data.isic2016 import load_isic2016
    from isic_smp.inference.load import save_bundle
    from isic_smp.inference.predictor import Predictor
    from isic_smp.inference.scoring import score
    from isic_smp.prepare import Place, prepare
    from isic_smp.training.checkpoint import Checkpoints
    from isic_smp.training.device import make_deterministic
    from isic_smp.training.distributed import Ranks
    from isic_smp.training.fit import fit
    from isic_smp.training.recipe import PRESETS
    from isic_smp.training.resume import resumable_state
    from isic_smp.training.statistics import renew_statistics

    recipe = dataclasses.replace(
        PRESETS["default"],
        encoder_weights=str(options.encoder_weights),
        seed=options.seed,
        epochs=options.unet_epochs or options.epochs or PRESETS["default"].epochs,
        **{setting: LATER[setting][0] for setting in options.without},
    )
    data = load_isic2016(options.data_dir)
    cpu = torch.device("cpu")
    make_deterministic(cpu, recipe.seed)
    prepared = prepare(recipe, data, Place(Ranks(), cpu, options.work_dir / "cache", silent))
    torch.manual_seed(recipe.seed)
    unet = smp.Unet(UNET_ENCODER, encoder_weights=None)
    isic_smp.load_encoder_weights(unet, str(options.encoder_weights))
    unet.to(memory_format=torch.channels_last)
    checkpoints = Checkpoints(options.unet)
    fit(
        unet,
        recipe,
        prepared.train,
        prepared.validation,
        device=cpu,
        checkpoints=checkpoints,
        fingerprint=data.fingerprint,
        state=resumable_state(checkpoints, recipe, data.fingerprint),
        on_epoch=silent,
        progress=NoProgress(),
    )
    if prepared.statistics is not None:
        renew_statistics(unet, recipe, **prepared.statistics, device=cpu)
    # As a run leaves it, so that `isic_smp.compare` takes the folder as one.
    info = {
        "recipe": recipe.to_dict() | {"encoder": UNET_ENCODER, "decoder": "smp.Unet"},
        "data": {"name": data.name, "fingerprint": data.fingerprint, "description": data.describe()},
    }
    save_bundle(unet, prepared.preprocessing, info, options.unet / "model")
    score(Predictor(unet, prepared.preprocessing), data.test).to_csv(options.unet / "test_scores.csv")


def row(options: argparse.Namespace, name: str, models: list[Path]) -> Row:
    """Cost, and test scores over the seeds."""
    from isic_smp.inference.load import load_bundle
    from isic_smp.models.cost import cost

    bundle = load_bundle(models[0])
    price = cost(bundle.model, bundle.preprocessing.size)
    test = {}
    for way in WAYS:
        scored = [test_scores(options, model, way) for model in models]
        test[way] = {
            name: round(value, 5)
            for score in ("dice", "iou")
            for name, value in over_seeds(score, [one[score] for one in scored]).items()
        }
    return {
        "network": name,
        "without": sorted(options.without),
        "epochs": bundle.info["recipe"]["epochs"],
        "seeds": len(models),
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu(),
        "parameters": price.parameters,
        "multiply_adds": price.multiply_adds,
        "test": test,
    }


def over_seeds(score: str, values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation; 0 of one seed."""
    return {score: mean(values), f"{score}_std": stdev(values) if len(values) > 1 else 0.0}


def test_scores(options: argparse.Namespace, model: Path, way: str) -> dict[str, float]:
    """Per-image mean Dice and IoU on the test images at their own sizes; kept in a file beside the model."""
    from isic_smp.data.isic2016 import load_isic2016
    from isic_smp.inference.load import load_bundle
    from isic_smp.inference.predictor import Predictor
    from isic_smp.inference.scoring import score

    kept = model.parent / f"test-{way.replace(',', '').replace(' ', '-')}.json"
    if not kept.exists():
        bundle = load_bundle(model)
        preprocessing = dataclasses.replace(bundle.preprocessing, **WAYS[way])
        summary = score(
            Predictor(bundle.model, preprocessing), load_isic2016(options.data_dir).test
        ).summary()
        kept.write_text(json.dumps({name: summary[f"{name}_per_image_own"] for name in ("dice", "iou")}))
    return json.loads(kept.read_text())


if __name__ == "__main__":
    main()
