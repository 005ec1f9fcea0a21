"""Which checkpoint a training may go on from: its own recipe's, on its own data. And what it may not wipe away."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isic_smp.errors import UserError
from isic_smp.models.upconvnet import UpConvNet
from isic_smp.training.checkpoint import Checkpoints
from isic_smp.training.recipe import Recipe, completed, differences

NEEDED = {"recipe", "fingerprint", "model", "optimizer", "schedule", "average", "history", "best_epoch"}
"""What a checkpoint must hold to be gone on from."""


BEGUN = {"recipe", "fingerprint", "network"}
"""What is noted when a training begins; an older release noted nothing."""


def resumable_state(checkpoints: Checkpoints, recipe: Recipe, fingerprint: str) -> dict[str, Any] | None:
    """The last checkpoint, for `fit` to go on from; None where there is none yet.

    Args:
        checkpoints: where the run keeps them.
        recipe: of the training that is to go on.
        fingerprint: of its data.

    Raises:
        UserError: the checkpoint is damaged, or of another recipe or other data.
    """
    state = checkpoints.load_last()
    if state is None:
        return None
    if lacking := sorted(NEEDED - state.keys()):
        raise UserError(f"{checkpoints.last} lacks {', '.join(lacking)}; delete the file to start afresh")
    if state["fingerprint"] != fingerprint:
        raise UserError(
            f"{checkpoints.last} was made on other data, or with another pipeline or other teachers; choose another "
            "--output-dir"
        )
    _check_recipe(state["recipe"], recipe, checkpoints.last, "choose another --output-dir")
    return state


def note_beginning(checkpoints: Checkpoints, recipe: Recipe, fingerprint: str, model: UpConvNet) -> None:
    """Keep, for `check_beginning`, what a training begins with."""
    checkpoints.save_beginning(
        {"recipe": recipe.to_dict(), "fingerprint": fingerprint, "network": _network(model)}
    )


def check_beginning(checkpoints: Checkpoints, recipe: Recipe, fingerprint: str, model: UpConvNet) -> None:
    """Refuse to go on with what began otherwise, also where no epoch was whole yet, so that no checkpoint says it.

    Its MLflow run would keep the former settings. And first weights may name another normalisation or padding by now:
    the epochs to come would be trained otherwise than those before.

    Raises:
        UserError: another recipe, other data, or another network or normalisation.
    """
    begun = checkpoints.load_beginning()
    if begun is None or not begun.keys() >= BEGUN:
        return
    way_out = "leave out --resume to begin anew, or choose another --output-dir"
    _check_recipe(begun["recipe"], recipe, checkpoints.begun.parent, way_out)
    if begun["fingerprint"] != fingerprint:
        raise UserError(f"cannot resume {checkpoints.begun.parent} on other data; {way_out}")
    if begun["network"] != _network(model):
        then, now = (
            ", ".join(f"{k} {v}" for k, v in said.items()) for said in (begun["network"], _network(model))
        )
        raise UserError(
            f"cannot resume {checkpoints.begun.parent}: the weights that it began with had {then}, and have {now} now; "
            "bring those back, or choose another --output-dir"
        )


def _network(model: UpConvNet) -> dict[str, Any]:
    """What first weights decide beside the weights, as JSON has it."""
    return {"name": model.name, "mean": list(model.mean), "std": list(model.std)}


def _check_recipe(then: Mapping[str, Any], now: Recipe, what: Path, way_out: str) -> None:
    if differing := differences(then, now):
        said = ", ".join(f"{name} {before} then, {here} now" for name, before, here in differing)
        raise UserError(f"cannot resume {what} with another recipe ({said}); {way_out}")


def check_frozen_encoder(state: Mapping[str, Any], model: nn.Module, weights: str) -> None:
    """Refuse to go on where a frozen encoder would start from other weights than the checkpoint's.

    The checkpoint's would be put back, but banked features, normalisation and padding are of those that `weights` names
    by now: the decoder would be fitted to one encoder and saved with another.

    Args:
        state: the checkpoint, from `resumable_state`.
        model: as a training that begins anew would have it, its encoder under `encoder`.
        weights: what the encoder's weights came from, for the message.

    Raises:
        UserError: they differ.
    """
    kept = state["model"]
    for name, value in model.state_dict().items():
        if name.startswith("encoder.") and not torch.equal(kept.get(name, value.new_empty(0)), value.cpu()):
            raise UserError(
                f"cannot resume: the frozen encoder's weights, from {weights}, are not those that the checkpoint was "
                "trained on; bring those back, or choose another --output-dir"
            )


def check_nothing_is_lost(checkpoints: Checkpoints) -> None:
    """Refuse to begin anew where a run is over, or where an interrupted training could go on.

    What this left would be overwritten, and be a mixture of two runs where the other came to no end.

    Raises:
        UserError: so it is.
    """
    if checkpoints.history.exists():
        folder = checkpoints.history.parent
        raise UserError(
            f"{folder} holds a run that is over; choose another --output-dir, or delete that folder"
        )
    try:
        state = checkpoints.load_last()
    except UserError:  # nothing can go on from it
        return
    if state is None or not state.keys() >= NEEDED:
        return
    done, recipe = len(state["history"]), completed(state["recipe"])
    raise UserError(
        f"{checkpoints.last} holds {done} of {recipe['epochs']} epochs of an interrupted training: --resume goes "
        "on with it; to begin anew, delete that file or choose another --output-dir"
    )
