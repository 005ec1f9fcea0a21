"""A network for prediction only: BatchNorm folded into the convolutions before it.

In evaluation mode a BatchNorm is a scale and a shift of each channel, which the convolution can do itself
(https://arxiv.org/abs/1712.05877, section 3.2): one pass over the feature map less for each.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_TOLERANCE = 1e-3
"""Largest difference, in parts of the largest output, that rounding in another order may make."""


def fused_for_inference(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy of `model` in evaluation mode with every BatchNorm folded that directly follows a convolution.

    Which layers follow each other is seen in a run on `example`, not guessed from names, so that any smp
    model will do. The copy cannot be trained, and has no classification head. Where it does not compute the same as `model`, as with a layer
    that looks at the map between convolution and BatchNorm, an unfused copy is returned.

    Args:
        model: a segmentation model; it is not touched.
        example: float (B, C, H, W), an input that the model takes, on the model's device.
    """
    plain = copy.deepcopy(model).requires_grad_(False)
    for module in plain.modules():
        module.training = False  # smp's own eval() leaves a frozen encoder as it was
    if getattr(plain, "classification_head", None) is not None:
        plain.classification_head = None  # type: ignore[assignment]  # its labels are no masks
    fused = copy.deepcopy(plain)
    pairs = _conv_norm_pairs(fused, example)
    for conv, norm in pairs:
        _replace(fused, conv, fuse_conv_bn_eval(conv, norm))
        # timm's BatchNormAct2d brings its activation (and a dropout, which evaluation switches off).
        _replace(fused, norm, getattr(norm, "act", nn.Identity()))
    with torch.inference_mode():
        expected, found = plain(example), fused(example)
    scale = expected.abs().max().clamp_min(1e-6)
    same = bool(((expected - found).abs().max() <= _TOLERANCE * scale).item())
    return fused if same else plain


def with_bf16_weights(model: nn.Module) -> nn.Module:
    """`model` with the weights of its convolutions in bf16, for use under autocast.

    Autocast would convert them at every call, which for a single image takes a fifth of the time.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.to(torch.bfloat16)
    return model


def _conv_norm_pairs(model: nn.Module, example: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose output, the very tensor, goes into a BatchNorm; both used once in the run."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # tensors are kept, or their ids would be reused
    taken: list[tuple[nn.BatchNorm2d, Tensor]] = []
    calls: dict[nn.Module, int] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            made[id(output)] = (module, output)
        elif isinstance(module, nn.BatchNorm2d):
            taken.append((module, inputs[0]))

    hooks = [
        m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)
    ]
    try:
        with torch.inference_mode():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    found = [(made[id(x)][0], norm) for norm, x in taken if id(x) in made]
    return [
        (conv, norm)
        for conv, norm in found
        if calls[conv] == calls[norm] == 1 and norm.running_mean is not None
    ]


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)
