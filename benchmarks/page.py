"""Write docs/speed.md from the results.

python benchmarks/page.py
"""

import json
from pathlib import Path

from common import RESULTS, table

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
}
NOTES = Path(__file__).parent / "notes.md"


def main() -> None:
    """Notes first, then each result that there is."""
    parts = [NOTES.read_text().rstrip()]
    for name, (title, command) in TITLES.items():
        file = RESULTS / f"{name}.json"
        if not file.exists():
            continue
        found = json.loads(file.read_text())
        machine = found["machine"]
        parts.append(f"## {title}")
        parts.append(
            f"`python {command}`, {found['date']}, {machine['cores']} cores of {machine['cpu']}, torch "
            f"{machine['torch']}; load average at the end {machine['load_average']}."
        )
        for heading, rows in found["tables"].items():
            parts += [f"**{heading}**", table(rows)]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
