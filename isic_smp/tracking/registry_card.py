"""What a registered version says of itself: tags to search by, and a description for people."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Run

SCORES = (("dice", "Dice"), ("iou", "IoU"), ("sensitivity", "Sensitivity"), ("specificity", "Specificity"))
SPLITS = ("validation", "test")


def with_test_scores(metadata: Mapping[str, Any], run: "Run") -> Mapping[str, Any]:
    """`metadata`, and where it has no test scores those of the run: a sweep scores its models once all are trained."""
    if metadata.get("test"):
        return metadata
    names = [f"{name}_per_image_own" for name, _ in SCORES]
    scores = {name: run.data.metrics.get(f"test/{name}") for name in names}
    return metadata if None in scores.values() else {**metadata, "test": scores}


def version_tags(metadata: Mapping[str, Any], run: "Run") -> dict[str, str]:
    """Tags of a version.

    Args:
        metadata: of the MLflow model: preprocessing, recipe, data, and scores of each split.
        run: that it came from.

    Returns:
        `data`, `data_fingerprint`, `encoder`, `recipe` (JSON), `run_name`, `git.commit`, the fields of
        the preprocessing, and `validation.dice_per_image_own` and the like.
    """
    data, recipe = metadata.get("data", {}), metadata.get("recipe", {})
    tags = {
        "run_name": run.info.run_name,
        "git.commit": run.data.tags.get("git.commit"),
        "data": data.get("description"),
        "data_fingerprint": data.get("fingerprint"),
        "encoder": recipe.get("encoder"),
        "recipe": json.dumps(recipe),
        **{name: json.dumps(value) for name, value in metadata["preprocessing"].items()},
    }
    for split in SPLITS:
        scores = metadata.get(split) or {}
        tags |= {f"{split}.{name}": f"{value:.6f}" for name, value in scores.items()}
    return {name: str(value) for name, value in tags.items() if value is not None}


def describe(metadata: Mapping[str, Any], run: "Run") -> str:
    """A version's description, in Markdown: scores first, then what it was trained on, then how to load it."""
    data, recipe, own = metadata.get("data", {}), metadata.get("recipe", {}), metadata["preprocessing"]
    shown = [split for split in SPLITS if metadata.get(split)]
    lines = [
        f"Lesion segmentation, encoder `{recipe.get('encoder')}`, run `{run.info.run_name}`.",
        "",
        "| per-image mean, own size | " + " | ".join(shown) + " |",
        "|---" * (len(shown) + 1) + "|",
        *(
            f"| {label} | "
            + " | ".join(f"{metadata[split][f'{name}_per_image_own']:.4f}" for split in shown)
            + " |"
            for name, label in SCORES
        ),
        "",
        f"Data: {data.get('description')}, fingerprint `{data.get('fingerprint')}`.",
        "",
        f"Images are resized to {own['size']} × {own['size']} and normalised with mean {own['mean']} and "
        f"std {own['std']}; a pixel is lesion above {own['threshold']}"
        f"{'; test-time flips' if own['test_time_flips'] else ''}"
        f"{'; the part around the lesion looked at twice, enlarged' if own.get('second_look') else ''}"
        f"{', with more contrast where it is faint' if own.get('second_look') and own.get('least_contrast') else ''}"
        f"{'; the largest piece of a mask alone' if own.get('largest_piece') else ''}"
        f"{'; narrow bays of its outline closed' if own.get('close_bays') else ''}"
        f"{'; drawn around all of the lesion where that is faint' if own.get('wrap_below') else ''}. `mlflow.pyfunc.load_model` does all that; "
        f"`mlflow.pytorch.load_model` gives the network alone: {metadata.get('program')}.",
    ]
    return "\n".join(lines)
