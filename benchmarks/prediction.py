"""Prediction: images/s in bulk and latency of one, against smp's U-Nets.

python benchmarks/prediction.py

All networks have random weights, and all are given the same float32 batch or picture; "isic_smp" is the
default network as `predict --fast` runs it (BatchNorm folded, bf16, channels_last). smp's U-Nets run as their
README shows: evaluation mode, no gradients, float32. Reading files is not part of this.
"""

from collections.abc import Callable
from typing import Any

from common import isolated, median_seconds, report, takes_no_options

SIZES = (128, 192, 256)
BATCH = 32
SECONDS = 1.5


def main() -> None:
    """Measure all, print, and write results/prediction.json."""
    takes_no_options(__doc__)
    rows, ratios = [], []
    for threads in (1, 2):
        found = isolated(measure, threads=threads)
        rows += found["rows"]
        by = {(r["network"], r["size"]): r for r in found["rows"]}
        for size in SIZES:
            own = by["isic_smp", size]
            ratios.append(
                {"threads": threads, "size": size}
                | {
                    f"bulk × {name}": own["images/s"] / by[name, size]["images/s"]
                    for name in ("smp mobilenet_v2", "smp resnet34", "smp efficientnet-b0")
                }
                | {
                    "latency × smp mobilenet_v2": by["smp mobilenet_v2", size]["ms for one"]
                    / own["ms for one"]
                }
            )
    report("prediction", {"Networks": rows, "Ratios (reach: 5 × MobileNet, 15 × ResNet34)": ratios})


def measure(threads: int) -> dict:
    """Every network at every size."""
    import torch

    torch.set_num_threads(threads)
    rows = []
    for size in SIZES:
        for name, batch, single in networks(size):
            seconds = median_seconds(batch, seconds=SECONDS, least=3)
            latency = median_seconds(single, seconds=SECONDS / 3, least=7)
            rows.append(
                {
                    "network": name,
                    "threads": threads,
                    "size": size,
                    "images/s": BATCH / seconds,
                    "ms for one": 1000 * latency,
                }
            )
            print(rows[-1], flush=True)
    return {"rows": rows}


def networks(size: int) -> list[tuple[str, Callable[[], Any], Callable[[], Any]]]:
    """Name, bulk call and call on one picture of each network."""
    import numpy as np
    import segmentation_models_pytorch as smp
    import torch

    from isic_smp.inference.engines import make_engine
    from isic_smp.inference.predictor import Predictor
    from isic_smp.inference.preprocessing import Preprocessing
    from isic_smp.network import build_network
    from isic_smp.training.device import resolve_precision
    from isic_smp.training.recipe import load_recipe

    torch.manual_seed(0)
    device = torch.device("cpu")
    pictures = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), np.uint8)
    model = build_network(load_recipe("default"), "none")
    preprocessing = Preprocessing(size=size, mean=model.mean, std=model.std)
    found = []
    for label, precision in (
        ("isic_smp", resolve_precision("auto", device)),
        ("isic_smp, float32", "float32"),
    ):
        engine = make_engine("torch", model, preprocessing, device=device, precision=precision)
        own = Predictor(engine, preprocessing, precision=precision)
        found.append(
            (label, lambda p=own: p.probabilities(pictures), lambda p=own: p.probabilities(pictures[:1]))
        )
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(255).contiguous()
    for encoder in ("mobilenet_v2", "resnet34", "efficientnet-b0"):
        net = smp.Unet(encoder, encoder_weights=None).eval()

        def run(batch: Any, net: Any = net) -> None:
            with torch.no_grad():
                net(batch).sigmoid()

        found.append((f"smp {encoder}", lambda run=run: run(x), lambda run=run: run(x[:1])))
    return found


if __name__ == "__main__":
    main()
