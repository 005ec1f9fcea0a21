"""Write docs/speed.md from the notes and the results.

python benchmarks/page.py

Results are not in the repository. The section of a benchmark that has none here stays as it is on the page, with the
date and command of its own.
"""

import json
import re
from pathlib import Path

from common import RESULTS, table, takes_no_options

PAGE = Path(__file__).parent.parent / "docs" / "speed.md"
TITLES = {
    "training": (
        "Training against the plain smp loop",
        "benchmarks/training.py --data-dir DIR --encoder-weights FILE --work-dir DIR",
    ),
    "prediction": ("Prediction", "benchmarks/prediction.py"),
    "scale": ("Size of the data set", "benchmarks/scale.py --work-dir DIR"),
    "limit": ("Distance from the machine's limit", "benchmarks/limit.py"),
    "sweep": (
        "Twelve trials in one process",
        "benchmarks/sweep.py --data-dir DIR --encoder-weights FILE --work-dir DIR",
    ),
    "by_hand": (
        "A sweep against its grid by hand",
        "benchmarks/by_hand.py --data-dir DIR --encoder-weights FILE --work-dir DIR --pairs 100",
    ),
    "workers": ("Workers", "benchmarks/workers.py"),
    "startup": (
        "Start-up and logging",
        "benchmarks/startup.py --data-dir DIR --encoder-weights FILE --work-dir DIR",
    ),
    "serving": ("Serving", "benchmarks/serving.py"),
    "same_scores": (
        "The fast path's scores against the plain path's",
        "benchmarks/same_scores.py --data-dir DIR --encoder-weights FILE --work-dir DIR",
    ),
}
NOTES = Path(__file__).parent / "notes.md"


def main() -> None:
    """Notes first, then each benchmark: from its result, or else as it stands on the page."""
    takes_no_options(__doc__)
    kept = sections(PAGE.read_text()) if PAGE.exists() else {}
    parts = [NOTES.read_text().rstrip()]
    for name, (title, command) in TITLES.items():
        file = RESULTS / f"{name}.json"
        if file.exists():
            parts.append(section(title, command, json.loads(file.read_text())))
        elif title in kept:
            parts.append(kept[title])
        print(f"{name}: {'measured' if file.exists() else 'kept' if title in kept else 'none'}")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n\n".join(parts) + "\n")


def section(title: str, command: str, found: dict) -> str:
    """One benchmark's section, from its result."""
    machine = found["machine"]
    parts = [
        f"## {title}",
        f"`python {command}`, {found['date']}, {machine['cores']} cores of {machine['cpu']}, torch "
        f"{machine['torch']}; load average at the end {machine['load_average']}.",
    ]
    for heading, rows in found["tables"].items():
        parts += [f"**{heading}**", table(rows)]
    return "\n\n".join(parts)


def sections(page: str) -> dict[str, str]:
    """The page's second-level sections, by their titles."""
    found = re.split(r"^(?=## )", page, flags=re.MULTILINE)[1:]
    return {text.partition("\n")[0].removeprefix("## "): text.rstrip() for text in found}


if __name__ == "__main__":
    main()
