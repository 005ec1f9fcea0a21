"""Get, make and check data.

python -m isic_smp.data download                        the official ISIC 2016 part 1, into ./data/isic2016
python -m isic_smp.data check DIR                       what is in DIR, and what is wrong with it
python -m isic_smp.data synthetic DIR --train 160       dermoscopy-like pictures with exact masks
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from isic_smp.cli import command, parse

PROG = "python -m isic_smp.data"


@dataclass(frozen=True)
class Download:
    """Fetch the four official archives of ISIC 2016 part 1 (about 0.85 GB), resuming what was begun."""

    data_dir: Path = Path("data") / "isic2016"
    """Folder to fill."""
    base_url: str | None = None
    """A mirror that holds the four .zip files. Default: the ISIC challenge archive."""

    def run(self) -> int:
        """Download, and say what is there now."""
        from isic_smp.data.download import OFFICIAL, download_isic2016
        from isic_smp.data.isic2016 import load_isic2016

        added = download_isic2016(self.data_dir, base_url=self.base_url or OFFICIAL)
        print(
            f"{len(added)} folders added to {self.data_dir}"
            if added
            else f"{self.data_dir} has all four folders"
        )
        print(load_isic2016(self.data_dir).describe())
        return 0


@dataclass(frozen=True)
class Check:
    """Report pairs, sizes, lesion areas, duplicates, and everything that loading would refuse.

    Exit code 0: all well. 1: problems, listed at the end. 2: nothing to check there.
    """

    dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder that holds the official folders, or some of them."""
    out: Path = Path("runs") / "check"
    """Folder for check.json, contact_sheet.png and duplicates.png."""
    binarize_masks: bool = False
    """Accept masks with grey values: above 128 is lesion, as for the official scorer."""

    def run(self) -> int:
        """Check, print and write."""
        from isic_smp.data.check import check

        return check(self.dir, self.out, binarize_masks=self.binarize_masks)


@dataclass(frozen=True)
class Synthetic:
    """Draw dermoscopy-like pictures with exact masks, in the official folder layout."""

    dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder to make; it must not exist yet, or be empty."""
    train: int = 160
    """Pictures to train on."""
    val: int = 40
    """Pictures to validate on."""
    test: int = 40
    """Pictures to test on."""
    size: int = 256
    """Side of the pictures, in pixels."""
    seed: int = 0
    """Equal seeds draw equal pictures."""

    def run(self) -> int:
        """Draw, and say what is there now."""
        from isic_smp.data.synthetic import load_synthetic, make_synthetic

        make_synthetic(
            self.dir,
            train=self.train,
            val=self.val,
            test=self.test,
            size=self.size,
            seed=self.seed,
            progress=True,
        )
        print(f"{self.dir}: {load_synthetic(self.dir).describe()}")
        return 0


Action = (
    Annotated[Download, tyro.conf.subcommand("download")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Synthetic, tyro.conf.subcommand("synthetic")]
)


def main() -> int:
    """Parse the command line and run the action it names."""
    return parse(Action, prog=PROG, description="Get, make and check data.").run()  # type: ignore[arg-type]  # a union of subcommands


if __name__ == "__main__":
    command(main, prog=PROG)
