"""What an unknown kind of lesion costs: one recipe on each kind's pictures, with others of it in training and without.

python benchmarks/kinds.py --known RUN_1 … RUN_N --unknown RUN …

Known are the N folds of a recipe and seed (`run --fold K/N`), unknown runs by the same recipe and seed that each left
another group out (`run --hold-out GROUP`). Each picture of such a group thus has two scores, both by networks that have
not seen it, of which one knows its kind. IoU at own size, as the runs scored it; ± is the standard error of the
difference over pictures. Nothing is trained or predicted. Writes results/kinds.json and docs/images/kinds.png.
"""

import argparse
from pathlib import Path

import numpy as np
from common import report
from known_unknown import as_row, draw

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "kinds.png"


def main() -> None:
    """Read, print and draw."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--known", nargs="+", required=True, metavar="RUN")
    words.add_argument("--unknown", nargs="+", required=True, metavar="RUN")
    options = words.parse_args()

    from isic_smp.comparison.folds import join_folds
    from isic_smp.comparison.runs import find_runs
    from isic_smp.data.division import group_held_out
    from isic_smp.data.names import DIAGNOSIS

    folds = join_folds(find_runs(options.known, metric="iou", split="validation"))
    if len(folds) != 1 or not folds[0].parts:
        words.error("--known: expected all folds of one recipe and seed")
    [known] = folds
    place = {id: n for n, id in enumerate(known.ids)}
    scores: dict[str, np.ndarray] = {}
    for run in find_runs(options.unknown, metric="iou", split="validation"):
        group = group_held_out(run.data["fingerprint"].removeprefix(known.data["fingerprint"]))
        if group is None or run.recipe != known.recipe:
            words.error(f"{run.name}: expected a run with --hold-out, of the same data, recipe and seed")
        its = known.scores[[place[id] for id in run.ids]]
        scores[group.removeprefix(DIAGNOSIS)] = np.stack([its, run.scores])
    rows = [as_row("kind", name, its) for name, its in scores.items()]
    report(
        "kinds", {f"IoU of pictures of a kind that is known and that is not, {len(known.parts)} folds": rows}
    )
    draw(scores, what="kind", picture=PICTURE)


if __name__ == "__main__":
    main()
