"""Which checkpoint a training may go on from: its own recipe's, on its own data."""

from typing import Any

from isic_smp.errors import UserError
from isic_smp.training.checkpoint import Checkpoints
from isic_smp.training.recipe import Recipe, differences

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
