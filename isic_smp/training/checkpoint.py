"""What a run keeps on disk while it trains, so that it can be interrupted and resumed.

`begun.json` says what the run began with, `last.pt` holds everything the next epoch needs, `best.safetensors` the weights
of the best epoch, and `history.json`, which comes last of all, says that the run is over: there is nothing to go on with.
Each is written beside its name, synced and renamed: a kill at any moment leaves the former file.
"""

import dataclasses
import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from isic_smp.errors import UserError
from isic_smp.files import write_atomically, write_text
from isic_smp.training.history import Epoch

FORMAT = 1


class Checkpoints:
    """The checkpoint files of one run, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.begun = folder / "begun.json"
        self.last = folder / "last.pt"
        self.best = folder / "best.safetensors"
        self.history = folder / "history.json"

    def clear(self) -> None:
        """Begin anew: what another training left here must not be taken for this one's."""
        # History first: what a kill leaves of the others must not pass for a run that is over.
        for path in (self.history, self.last, self.best):
            path.unlink(missing_ok=True)

    def save_beginning(self, beginning: dict[str, Any]) -> None:
        """Keep what no later call may change: plain values."""
        write_text(self.begun, json.dumps(beginning, indent=1))

    def load_beginning(self) -> dict[str, Any] | None:
        """What `save_beginning` kept, or None where there is none, or a damaged one."""
        try:
            kept = json.loads(self.begun.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return kept if isinstance(kept, dict) else None

    def save_last(self, state: dict[str, Any]) -> None:
        """Keep all that the next epoch needs: tensors, numbers, strings, and lists and dicts of them."""

        def write(path: Path) -> None:
            try:
                torch.save({"format": FORMAT, **state}, path)
            except RuntimeError as error:  # torch's word for a failed write
                raise OSError(errno.EIO, str(error)) from error

        write_atomically(self.last, write)

    def load_last(self) -> dict[str, Any] | None:
        """What `save_last` kept, or None where there is nothing yet.

        Raises:
            UserError: the file is damaged, is no checkpoint of this project, or holds more than plain data.
        """
        if not self.last.exists():
            return None
        try:
            state = torch.load(self.last, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(
                f"cannot resume from {self.last}: {' '.join(str(error).split())[:200]}; "
                "delete the file to start afresh"
            ) from None
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise UserError(
                f"{self.last} is no checkpoint of format {FORMAT}; delete the file to start afresh"
            )
        return state

    def save_history(self, history: Sequence[Epoch]) -> None:
        """Keep the curves of a run that is over; epochs are counted from 1, as in all that is printed."""
        epochs = [{**dataclasses.asdict(record), "epoch": record.epoch + 1} for record in history]
        write_text(self.history, json.dumps(epochs, indent=1))

    def save_best(self, weights: dict[str, Tensor], epoch: int) -> None:
        """Keep the weights of the best epoch so far."""
        plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}

        def write(path: Path) -> None:
            try:
                save_file(plain, path, metadata={"epoch": str(epoch)})
            except SafetensorError as error:
                raise OSError(errno.EIO, str(error)) from error

        write_atomically(self.best, write)

    def load_best(self) -> dict[str, Tensor]:
        """The weights of the best epoch.

        Raises:
            UserError: the file is gone or damaged.
        """
        try:
            return load_file(self.best)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"cannot read {self.best}: {' '.join(str(error).split())[:200]}; "
                f"delete {self.last.name} beside it too, and start afresh"
            ) from None
