"""What another machine does with a registered model: no isic_smp, no smp, no timm, no pickle.

MLFLOW_TRACKING_URI=… python elsewhere.py models:/lesions@champion OUT IMAGE [IMAGE…]

Loads the model both ways, writes OUT/<image>.npz with the mask and the probabilities that
`mlflow.pyfunc` gives, and for images of the network's own size also those of `mlflow.pytorch`, and
prints which packages it worked with, and without.
"""

import argparse
import importlib
import os
import sys
from pathlib import Path

os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"

import mlflow
import numpy as np
import torch
from PIL import Image

ABSENT = ("isic_smp", "segmentation_models_pytorch", "timm", "torchvision")


def main() -> None:
    """Load, predict, write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("uri", metavar="MODEL")
    words.add_argument("out", metavar="OUT", type=Path)
    words.add_argument("images", metavar="IMAGE", nargs="+", type=Path)
    given = words.parse_args()
    for name in ABSENT:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        sys.exit(f"{name} is installed here: this environment is not a clean one")

    given.out.mkdir(parents=True, exist_ok=True)
    served = mlflow.pyfunc.load_model(given.uri)
    network = mlflow.pytorch.load_model(given.uri)
    preprocessing = served.metadata.metadata["preprocessing"]
    found = served.predict(given.images)
    for image, row in zip(given.images, found.to_dict("records"), strict=True):
        arrays = {"mask": row["mask"], "pyfunc": row["probability"]}
        pixels = np.array(Image.open(image).convert("RGB"))
        if pixels.shape[:2] == (preprocessing["size"],) * 2:
            arrays["pytorch"] = probabilities(network, pixels, preprocessing)
        np.savez(given.out / f"{image.stem}.npz", **arrays)
    print(f"mlflow {mlflow.__version__}, torch {torch.__version__}; without {', '.join(ABSENT)}")


@torch.inference_mode()
def probabilities(network: torch.nn.Module, pixels: np.ndarray, preprocessing: dict) -> np.ndarray:
    """The torch.export program by hand: uint8 (H, W, 3) to float32 (H, W)."""
    normalised = (pixels / 255 - preprocessing["mean"]) / preprocessing["std"]
    batch = torch.from_numpy(normalised.transpose(2, 0, 1)[None]).float()
    return network(batch).sigmoid()[0, 0].numpy()


if __name__ == "__main__":
    main()
