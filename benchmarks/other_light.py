"""How masks hold when pictures are darker, lighter or of another tint than they were: models side by side.

python benchmarks/other_light.py --data-dir DIR                                          # the shipped model, validation images
python benchmarks/other_light.py --data-dir DIR --models RUN_A RUN_B --hold-out hard     # runs that were made with --hold-out hard

Each validation picture is raised to a power, made brighter or darker, or tinted, and predicted as its model predicts; IoU
is at own size. That is no dark skin and no other camera, but the least that a model must bear before those. No test
image is looked at. Writes results/other_light.json, and of two models docs/images/other_light.jpg.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from common import as_score, iou, options_of_models, report, validation_pictures

SHOWN = ("as it is", "power 1.5", "power 2", "power 2.5")
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "other_light.jpg"
Light = Callable[[np.ndarray], np.ndarray]


def power(gamma: float) -> Light:
    """Pixels, as shares of white, raised to a power: above 1 darker, black and white as they were."""
    table = np.round(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return lambda image: table[image]


def gain(*factors: float) -> Light:
    """Every pixel, or each of red, green and blue, times a factor."""
    return lambda image: np.round(image * np.array(factors)).clip(0, 255).astype(np.uint8)


LIGHTS: dict[str, Light] = {
    "as it is": lambda image: image,
    "power 0.5": power(0.5),
    "power 0.7": power(0.7),
    "power 1.5": power(1.5),
    "power 2": power(2),
    "power 2.5": power(2.5),
    "0.6 times as bright": gain(0.6),
    "1.3 times as bright": gain(1.3),
    "bluish": gain(0.85, 1, 1.15),
    "reddish": gain(1.1, 0.9, 0.8),
}


def main() -> None:
    """Score, print, draw, and write results/other_light.json."""
    options = options_of_models(__doc__).parse_args()

    import torch

    torch.set_num_threads(1)
    from isic_smp.inference.open_predictor import open_predictor

    images, masks = validation_pictures(options.data_dir, options.hold_out)
    predictors = {model: open_predictor(model).predictor for model in options.models}

    rows, ious, shown = [], {}, {}
    for light, change in LIGHTS.items():
        changed = [change(image) for image in images]
        row = {"light": light}
        for model, predictor in predictors.items():
            chances = predictor.predict(changed)
            threshold = predictor.preprocessing.threshold
            ious[model, light] = np.array(
                [iou(c > threshold, m > 0) for c, m in zip(chances, masks, strict=True)]
            )
            shown[model, light] = chances
            row[Path(model).name] = as_score(ious[model, light].mean())
        rows.append(row)
        print(row, flush=True)
    title = f"IoU, {len(images)} images"
    report("other_light", {title: rows}, models=options.models, hold_out=options.hold_out)
    if len(predictors) == 2:
        first = options.models[0]
        lost = ious[first, SHOWN[0]] - ious[first, SHOWN[-1]]
        case = int(np.argsort(lost)[round(0.9 * (len(lost) - 1))])  # what one picture in ten loses, or more
        draw(
            images[case], masks[case], {key: chances[case] for key, chances in shown.items()}, options.models
        )


def draw(image: np.ndarray, mask: np.ndarray, chances: dict, models: Sequence[str]) -> None:
    """One picture in four lights, a row a model."""
    import cv2

    from isic_smp.tracking.figures import overlay

    rows = [
        [overlay(LIGHTS[light](image), mask, chances[model, light], light, side=360) for light in SHOWN]
        for model in models
    ]
    picture = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    cv2.imwrite(str(PICTURE), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
