"""What accuracy costs: our networks and smp's U-Net on the whole MobileNet, trained on the same images.

python benchmarks/networks.py --data-dir DIR --encoder-weights FILE --work-dir DIR [--seeds 3] [--only small]
python benchmarks/networks.py … --without tones close_bays sharp_views      # as the presets were before these

Each network is trained by the preset that is named with it (the U-Net by the default one, on the same batches) and
scored on the test images, each at its own size: by one pass, with a second look at the part around the lesion,
averaged over the eight flips and turns, and with both. A run that is done is not trained again, so the command can be
interrupted. Writes results/networks.json and docs/images/networks.png.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

from common import NoProgress, report, silent

NETWORKS: dict[str, list[str]] = {
    "fine-tuned": ["--recipe", "default"],
    "frozen encoder": ["--recipe", "default", "--freeze"],
    "frozen encoder, wide decoder": ["--recipe", "default", "--freeze", "--decoder-width", "1.5"],
    "fine-tuned, four steps": ["--recipe", "default", "--decoder-depth", "4"],
    "frozen encoder, four steps": ["--recipe", "default", "--decoder-depth", "4", "--freeze"],
    "small": ["--recipe", "small"],
    "small, taught": ["--recipe", "small"],
    "smp.Unet, whole MobileNetV2": [],
}
LATER = {
    "tones": (0.0, ["--tones", "0"]),
    "close_bays": (False, ["--no-close-bays"]),
    "sharp_views": (False, ["--no-sharp-views"]),
}
"""What the presets did not have when earlier figures were measured: the setting without it, and the options that say so."""
WAYS = {
    "": {"test_time_flips": False, "second_look": False},
    "second look": {"test_time_flips": False, "second_look": True},
    "flips": {"test_time_flips": True, "second_look": False},
    "both": {"test_time_flips": True, "second_look": True},
}
"""How a trained network is asked."""
MARKERS = "os*^vDXP"
"""Of the points in the picture, a network each."""
TAUGHT = ", taught"
"""Ends the names of networks that learn from the fine-tuned ones, of all seeds, as well as from the masks."""
UNET = "smp.Unet, whole MobileNetV2"
UNET_ENCODER = "trunc-mobilenetv2_100-s6-same"
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "networks.png"


def main() -> None:
    """Train what is missing, score, print, draw, and write results/networks.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    words.add_argument("--encoder-weights", type=Path, required=True)
    words.add_argument("--work-dir", type=Path, required=True)
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--unet-seeds", type=int, help="of the U-Net, which takes five times as long")
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
        models = [trained(options, name, seed) for seed in range(seeds)]
        rows.append(row(options, name, models))
    report("networks", {"Test images, each at its own size; mean ± standard deviation over seeds": rows})
    draw(rows)


def trained(options: argparse.Namespace, name: str, seed: int) -> Path:
    """The saved model of a network, trained now or before."""
    place = options.work_dir.resolve() / "networks"
    without = "".join(f"-without-{setting}" for setting in sorted(options.without))
    folder = place / f"{name.replace(' ', '-').replace(',', '').replace('.', '-')}{without}-s{seed}"
    place.mkdir(parents=True, exist_ok=True)
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
    from isic_smp.prepare import Place, prepare
    from isic_smp.training.checkpoint import Checkpoints
    from isic_smp.training.device import make_deterministic
    from isic_smp.training.distributed import Ranks
    from isic_smp.training.fit import fit
    from isic_smp.training.recipe import PRESETS
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
    fit(
        unet,
        recipe,
        prepared.train,
        prepared.validation,
        device=cpu,
        checkpoints=Checkpoints(options.unet),
        fingerprint=data.fingerprint,
        resume=True,
        on_epoch=silent,
        progress=NoProgress(),
    )
    if prepared.statistics is not None:
        renew_statistics(unet, recipe, **prepared.statistics, device=cpu)
    save_bundle(unet, prepared.preprocessing, {"recipe": recipe.to_dict()}, options.unet / "model")


def row(options: argparse.Namespace, name: str, models: list[Path]) -> dict:
    """Cost, and test scores over the seeds."""
    from isic_smp.inference.load import load_bundle
    from isic_smp.models.cost import cost

    scored = [{way: test_scores(options, model, way) for way in WAYS} for model in models]
    bundle = load_bundle(models[0])
    price = cost(bundle.model, bundle.preprocessing.size)
    found = {
        "network": name,
        "parameters, M": round(price.parameters / 1e6, 3),
        "multiply-adds, M": round(price.multiply_adds / 1e6),
    }
    for way in WAYS:
        for score in ("Dice", "IoU"):
            values = [one[way][score.lower()] for one in scored]
            found[f"{score}{way and ', '}{way}"] = (
                f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")
            ).replace("0.", ".")
    return found


def test_scores(options: argparse.Namespace, model: Path, way: str) -> dict[str, float]:
    """Per-image mean Dice and IoU on the test images at their own sizes; kept in a file beside the model."""
    from isic_smp.data.isic2016 import load_isic2016
    from isic_smp.inference.load import load_bundle
    from isic_smp.inference.predictor import Predictor
    from isic_smp.inference.scoring import score

    kept = model.parent / f"test-{way.replace(' ', '-') or 'one-pass'}.json"
    if not kept.exists():
        bundle = load_bundle(model)
        preprocessing = dataclasses.replace(bundle.preprocessing, **WAYS[way])
        summary = score(
            Predictor(bundle.model, preprocessing), load_isic2016(options.data_dir).test
        ).summary()
        kept.write_text(json.dumps({name: summary[f"{name}_per_image_own"] for name in ("dice", "iou")}))
    return json.loads(kept.read_text())


def draw(rows: list[dict]) -> None:
    """Test IoU against parameters and against multiply-adds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True, layout="constrained")
    for axis, cost in zip(axes, ("parameters, M", "multiply-adds, M"), strict=True):
        for found, marker in zip(rows, MARKERS, strict=False):
            iou, _, error = found["IoU"].partition(" ± ")
            axis.errorbar(
                found[cost],
                float(iou),
                yerr=float(error or 0),
                marker=marker,
                capsize=3,
                label=found["network"],
            )
        axis.set(xscale="log", xlabel=cost)
        for set_formatter in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
            set_formatter(FuncFormatter(_one_two_five))
        axis.margins(x=0.15, y=0.15)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("test IoU, 331 images")
    # Not beside the points: several networks of nearly one size lie upon each other.
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(PICTURE, dpi=110)


def _one_two_five(value: float, _: object) -> str:
    """The labels of a logarithmic axis that are worth their room: 0.2, 0.5, 1, 2, 5, 10, …"""
    return f"{value:g}" if f"{value:g}".lstrip("0.")[:1] in ("1", "2", "5") else ""


if __name__ == "__main__":
    main()
