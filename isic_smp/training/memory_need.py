"""Does a training fit into the memory that is free? Estimated and said before the work, not by the system's killer."""

import copy
import os
from pathlib import Path

import psutil
import torch
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor

from isic_smp.errors import UserError
from isic_smp.training.cpu_rewrites import rewritten
from isic_smp.training.device import autocast, resolve_precision
from isic_smp.training.distributed import Ranks
from isic_smp.training.recipe import Recipe

STEP, FROZEN = 1.4, 0.3
"""Peak of a step over what its forward pass keeps for the backward pass, and over what it would keep besides if
nothing were frozen; measured, see docs/reliability.md."""

BESIDE = 350_000_000
"""Bytes that a run takes besides: pictures on their way, scores, the export, MLflow; measured likewise."""

MARGIN = 0.3
"""By how much of itself the estimate may be wrong."""

PROBE = 256
"""Side in pixels of the largest picture that is tried; 8 halvings."""

CGROUPS = Path("/sys/fs/cgroup")


def check_memory(
    model: SegmentationModel, recipe: Recipe, device: torch.device, ranks: Ranks, *, images: int
) -> str | None:
    """Compare what training on a CPU will need with what is free.

    Args:
        model: the network, on `device`; it stays as it is.
        recipe: how it will be trained.
        device: on a GPU nothing is estimated.
        ranks: the processes that share each batch; those on this machine share its memory.
        images: how many are trained on: no batch holds more.

    Returns:
        A warning, in one line, where it may not fit; None where it does.

    Raises:
        UserError: it will not fit.
    """
    if device.type != "cpu":
        return None
    step = step_bytes(model, recipe)
    # Gradients, the optimiser's two moments, and an average of the weights.
    beside = BESIDE + 4 * sum(p.numel() * p.element_size() for p in model.parameters())
    free = free_bytes() // ranks.local_world
    batch = min(recipe.batch_size, images)
    needed = beside + step * -(-batch // ranks.world)
    if needed * (1 + MARGIN) <= free:
        return None
    fits = int((free / (1 + MARGIN) - beside) / step) * ranks.world
    advice = (
        f"--batch-size {fits} should fit"
        if fits >= 2
        else "give a smaller --size, an encoder cut earlier, or more memory"
    )
    said = (
        f"training needs about {needed * ranks.local_world / 1e9:.1f} GB more memory, and "
        f"{free * ranks.local_world / 1e9:.1f} GB are free (size {recipe.size}, batches of {batch})"
    )
    if needed * (1 - MARGIN) > free:
        raise UserError(f"{said}: {advice}")
    return f"{said}; it may be killed: {advice}"


def step_bytes(model: SegmentationModel, recipe: Recipe) -> float:
    """The peak of a training step, for one picture of the batch."""
    kept = kept_bytes(model, recipe, frozen=recipe.freeze)
    whole = kept_bytes(model, recipe, frozen=False) if recipe.freeze else kept
    return STEP * kept + FROZEN * (whole - kept)


def kept_bytes(model: SegmentationModel, recipe: Recipe, *, frozen: bool) -> int:
    """What one picture's forward pass keeps for the backward pass.

    Counted in one such pass of a copy, over a smaller picture where the recipe's are large: what is kept goes with the
    pixels, and a check of what fits must not take more than that itself.
    """
    network = copy.deepcopy(model).train()
    network.freeze_encoder() if frozen else network.unfreeze_encoder()
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    device = next(model.parameters()).device
    side = min(recipe.size, PROBE)
    pictures = torch.zeros(2, 3, side, side, device=device)  # BatchNorm needs two
    if recipe.channels_last:
        pictures = pictures.contiguous(memory_format=torch.channels_last)
    state = torch.random.get_rng_state()
    with (
        autocast(device, resolve_precision(recipe.precision, device)),
        rewritten(network),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        network(pictures)
    torch.random.set_rng_state(state)
    probed = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 2
    return round(probed * (recipe.size / side) ** 2)


def free_bytes() -> int:
    """Memory that this process may still take: the machine's, or less where a control group limits it."""
    return max(0, min([psutil.virtual_memory().available, *_groups_free()]))


def _groups_free() -> list[int]:
    """What is left to each control group (version 1 or 2) that this process is in, where one has a limit."""
    left = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # another system than Linux
        return []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = CGROUPS / controllers
        limit, used = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
            if controllers
            else ("memory.max", "memory.current")
        )
        # A container sees its own group as the root, whatever its name outside.
        group = Path(os.path.normpath(f"{root}/{name}"))
        for folder in {root, *(p for p in (group, *group.parents) if p.is_relative_to(root))}:
            try:
                most, now = (int((folder / file).read_text()) for file in (limit, used))
                cached = dict(row.split() for row in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such group, or "max"
                continue
            left.append(most - now + int(cached.get("total_inactive_file", cached.get("inactive_file", 0))))
    return left
