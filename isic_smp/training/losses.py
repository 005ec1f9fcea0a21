"""The losses by name, from segmentation-models-pytorch, for one lesion class."""

from collections.abc import Callable

from segmentation_models_pytorch import losses as smp_losses
from torch import Tensor, nn

from isic_smp.errors import UserError


class BceLoss(nn.Module):
    """Binary cross-entropy on logits, the mean over pixels.

    As torch's `binary_cross_entropy_with_logits`, but log(1 + e^-|x|) is taken as -log(sigmoid(|x|)), which
    lies within 1e-7 of it: torch does not vectorise log1p on a CPU, and takes ten times as long.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Both (B, 1, H, W) to a scalar."""
        return (logits.clamp_min(0) - logits * target - logits.abs().sigmoid().log()).mean()


class SigmoidLoss(nn.Module):
    """A loss on probabilities, given logits; smp's own way there is e^log(sigmoid), which is slow on a CPU."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Both (B, 1, H, W) to a scalar."""
        return self.loss(logits.sigmoid(), target)


class BceDiceLoss(nn.Module):
    """Binary cross-entropy plus Dice loss: smooth gradients, and the score's own shape."""

    def __init__(self) -> None:
        super().__init__()
        self.bce, self.dice = BceLoss(), _dice()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Both (B, 1, H, W) to a scalar."""
        return self.bce(logits, target) + self.dice(logits, target)


class LovaszLoss(nn.Module):
    """Lovász hinge of each image, the mean over images: what stands in for 1 - IoU of its mask (Berman et al. 2018).

    A hinge asks no more of a pixel than to be right by a margin. With the usual margin of 1, which is a probability of
    .73, a network calls doubtful all that it is sure of. A wider one leaves the masks as they are, and lets the
    probabilities tell which of them is doubtful.
    """

    MARGIN = 6.0
    """In logits; chosen on pictures left out (docs/recipe.md)."""

    def __init__(self) -> None:
        super().__init__()
        self.hinge = smp_losses.LovaszLoss("binary", per_image=True)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Both (B, 1, H, W) to a scalar; target of 0 and 1."""
        return self.hinge(logits / self.MARGIN, target)


class Float32Loss(nn.Module):
    """A loss in float32 on the logits of any precision: sums over many pixels go wrong in 16 bits."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Both (B, 1, H, W) to a float32 scalar."""
        return self.loss(logits.float(), target.float())


def _dice() -> nn.Module:
    return SigmoidLoss(smp_losses.DiceLoss("binary", from_logits=False))


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "bce": BceLoss,
    "dice": _dice,
    "jaccard": lambda: smp_losses.JaccardLoss("binary"),
    "bce_dice": BceDiceLoss,
    # Lin et al. 2017, gamma 2; without class weight, since lesions cover a good part of these images.
    "focal": lambda: smp_losses.FocalLoss("binary", gamma=2.0),
    "lovasz": LovaszLoss,
    # Salehi et al. 2017: a missed lesion pixel weighs 0.7, a false alarm 0.3 (0.5 each would be Dice).
    "tversky": lambda: smp_losses.TverskyLoss("binary", alpha=0.3, beta=0.7),
}


def make_loss(name: str) -> nn.Module:
    """The loss `name` on raw logits.

    Dice, Jaccard and Tversky are computed over all pixels of a batch together, so their value for a
    set of images depends a little on how it was cut into batches; where no pixel of a batch is
    lesion, they are 0 with a zero gradient (smp's rule). Lovász is a mean over images, the others
    over pixels.

    Returns:
        Module on (logits (B, 1, H, W) of any float type, target (B, 1, H, W) of 0 and 1) giving a
        float32 scalar; computed in float32 under autocast too.

    Raises:
        UserError: no loss of that name.
    """
    if name not in LOSSES:
        raise UserError(f"no loss {name!r}: expected one of {', '.join(LOSSES)}")
    return Float32Loss(LOSSES[name]())
