"""What an unknown camera costs: one recipe on each camera's pictures, with others of it in training and without.

python benchmarks/cameras.py --data-dir DIR --known RUN_1 … RUN_N --unknown RUN_1 … RUN_N

Known are the N folds of a recipe and seed (`run --fold K/N`), unknown those that keep whole cameras apart (`run --fold
K/N:cameras`), by the same recipe and seed. Each training picture thus has two scores, both by networks that have not
seen it, of which one knows its camera. IoU at own size, as the runs scored it; ± is the standard error of the
difference over pictures. Nothing is trained or predicted. Writes results/cameras.json and docs/images/cameras.png.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import report
from known_unknown import as_row, draw

LEAST = 30
"""Pictures of a camera that has a row of its own."""
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "cameras.png"


def main() -> None:
    """Read, print and draw."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    words.add_argument("--known", nargs="+", required=True, metavar="RUN")
    words.add_argument("--unknown", nargs="+", required=True, metavar="RUN")
    options = words.parse_args()

    from isic_smp.comparison.folds import join_folds
    from isic_smp.comparison.runs import check_comparable, find_runs
    from isic_smp.data.isic2016 import load_isic2016

    known, unknown = (
        join_folds(find_runs(names, metric="iou", split="validation"))
        for names in (options.known, options.unknown)
    )
    if not len(known) == len(unknown) == 1 or known[0].recipe != unknown[0].recipe:
        words.error("expected all folds of one recipe and seed twice, with whole cameras in them and without")
    check_comparable([*known, *unknown])
    both = np.stack([known[0].scores, unknown[0].scores])
    cameras = cameras_of(load_isic2016(options.data_dir))
    place = {id: n for n, id in enumerate(known[0].ids)}
    scores = {name: both[:, [place[id] for id in ids]] for name, ids in cameras.items()}
    rows = [as_row("camera", name, its) for name, its in scores.items()]
    report(
        "cameras",
        {f"IoU of pictures by cameras that are known and that are not, {len(known[0].parts)} folds": rows},
    )
    draw(scores, what="camera", picture=PICTURE)


def cameras_of(data: Any) -> dict[str, Sequence[str]]:
    """The ids of all training pictures, and of each camera's, by the size that most of its frames have."""
    from isic_smp.data.cameras import cameras, frames

    pairs = [*data.train, *data.val]
    sizes = frames(pairs, data.root)
    found: dict[str, Sequence[str]] = {"all": [pair.id for pair in pairs]}
    others: list[str] = []
    for ids in cameras(pairs, data.root):
        [(frame, _)] = Counter(sizes[id] for id in ids).most_common(1)
        if len(ids) < LEAST:
            others += ids
        else:
            found[" × ".join(map(str, frame))] = ids
    return found | {f"those with fewer than {LEAST}": others}


if __name__ == "__main__":
    main()
