"""The pictures that this project was measured on, out of a complete ISIC 2016 part 1: 845 for training, 331 for testing.

python -m isic_smp.data download
python benchmarks/subset.py --data-dir data/isic2016 --out data/subset

Links every picture and mask but the 103 of not_at_hand.txt into the same four folders, and a manifest.csv where there is
one; then says what is there. What was at hand had been shrunken (most to 256 × 256, 98 training pictures to the square in
their middle), and its masks are the re-issues of 2017 and 2018, so scores on a download come near those of the pages and
do not equal them.
"""

import argparse
from pathlib import Path

NOT_AT_HAND = Path(__file__).parent / "not_at_hand.txt"


def main() -> None:
    """Link, and say how many of how many there are."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True, help="that holds the four official folders")
    words.add_argument("--out", type=Path, required=True, help="a new folder for the links")
    options = words.parse_args()

    from isic_smp.data.isic2016 import FOLDERS, load_isic2016

    whole: Path = options.data_dir.resolve()
    load_isic2016(whole)  # refuses what it could not read, before anything is made
    left_out = set(NOT_AT_HAND.read_text().split())
    for folder in FOLDERS:
        (options.out / folder).mkdir(parents=True)
        for file in sorted((whole / folder).iterdir()):
            if file.stem.removesuffix("_Segmentation") not in left_out:
                (options.out / folder / file.name).symlink_to(file)
    if (whole / "manifest.csv").exists():
        (options.out / "manifest.csv").symlink_to(whole / "manifest.csv")
    print(load_isic2016(options.out).describe())


if __name__ == "__main__":
    main()
