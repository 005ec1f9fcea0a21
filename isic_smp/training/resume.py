"""Which checkpoint a training may go on from: its own recipe's, on its own data. And which it may not wipe away."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from isic_smp.errors import UserError
from isic_smp.training.checkpoint import Checkpoints
from isic_smp.training.recipe import Recipe, completed, differences

NEEDED = {"recipe", "fingerprint", "model", "optimizer", "schedule", "average", "history", "best_epoch"}
"""What a checkpoint must hold to be gone on from."""


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
    if differing := differences(state["recipe"], recipe):
        said = ", ".join(f"{name} {then} then, {now} now" for name, then, now in differing)
        raise UserError(
            f"cannot resume {checkpoints.last} with another recipe ({said}); choose another --output-dir"
        )
    return state


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
    """Refuse to begin anew where an interrupted training could go on; its checkpoint would be deleted.

    Raises:
        UserError: whole epochs are there of a training that did not come to its end, or not to its model.
    """
    try:
        state = checkpoints.load_last()
    except UserError:  # nothing can go on from it
        return
    if state is None or not state.keys() >= NEEDED:
        return
    done, recipe = len(state["history"]), completed(state["recipe"])
    patience = recipe["early_stopping"]
    trained = done >= recipe["epochs"] or 0 < patience <= done - 1 - state["best_epoch"]
    if not (trained and checkpoints.history.exists()):
        raise UserError(
            f"{checkpoints.last} holds {done} of {recipe['epochs']} epochs of an interrupted training: --resume goes "
            "on with it; to begin anew, delete that file or choose another --output-dir"
        )
