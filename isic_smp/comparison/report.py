"""The comparison as one HTML file that opens without a server or a network: words, tables and pictures."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from isic_smp.comparison.effects import METRIC_NAMES, Comparison, say_p
from isic_smp.stats import CONFIDENCE, RESAMPLES, PairedComparison

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 70rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.answer { font-size: 1.15rem; border-left: .3rem solid #0072b2; padding: .4rem 1rem; background: #f2f6fa; }
.note { color: #444; } table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: left; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } img { max-width: 100%; height: auto; } figure { margin: 1.5rem 0; }
figcaption { color: #444; font-size: .95rem; }
"""

CAPTIONS = {
    "effects": "Mean difference with its 95 % interval, for all images and for kinds of them, with their number.",
    "scatter": "Each point is an image; above the line the second method scores higher. "
    "The axes are stretched towards 1, where most images lie.",
    "differences": "How the differences of the images spread. The diamond is their mean with its interval.",
    "images": "The images that differ most, the largest gains first, then the largest losses. "
    "Blue, wide: true outline. Yellow, narrow: predicted outline.",
}


def write_report(
    path: Path,
    comparisons: Sequence[Comparison],
    *,
    setting: str,
    caveats: Sequence[str],
    pictures: Mapping[str, Sequence[Path]],
) -> None:
    """Write the report.

    Args:
        path: HTML file to write.
        comparisons: at least one, all against the same first group.
        setting: one line on data, split and metric.
        caveats: what a reader should know before relying on the answer.
        pictures: PNG files by heading, named after the keys of `CAPTIONS`; they are put into the file.
    """
    groups = [comparisons[0].a, *(c.b for c in comparisons)]
    title = f"{' vs '.join(group.label for group in groups)}, {METRIC_NAMES[comparisons[0].metric]}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="note">{escape(setting)}</p>',
        *(f'<p class="answer">{escape(c.answer())}</p>' for c in comparisons),
        *(f'<p class="note">{escape(line)}</p>' for line in caveats),
        "<h2>Runs</h2>",
        _table(
            ["", "runs", "mean", "each run"],
            [
                [
                    group.label,
                    ", ".join(run.name for run in group.runs),
                    f"{group.scores.mean():.4f}",
                    "  ".join(f"{mean:.4f}" for mean in group.scores.mean(axis=1)),
                ]
                for group in groups
            ],
        ),
    ]
    for comparison in comparisons:
        parts += [
            f"<h2>{escape(comparison.b.label)} against {escape(comparison.a.label)}</h2>",
            _effects_table(comparison),
        ]
    for heading, files in pictures.items():
        parts.append(f"<h2>{escape(heading)}</h2>")
        parts += [_figure(file) for file in files]
    parts += ["<h2>How this was computed</h2>", f"<p>{escape(method(comparisons))}</p>"]
    path.write_text(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n",
        encoding="utf-8",
    )


def method(comparisons: Sequence[Comparison]) -> str:
    """How the numbers were computed, in a paragraph."""
    words = (
        "Scores are each image's at its own size, and every method is scored on the same images. A difference is the "
        f"second method's score minus the first's. The {CONFIDENCE:.0%} intervals are bootstrap percentile intervals "
        f"({RESAMPLES:,} resamples, fixed seed; images are drawn with replacement, together with the scores of all "
        "models), stretched to Student's quantiles; where a method was trained under several seeds, also by what these "
        "differ by and by how few they are (seeds as readers of the same cases: Hillis, Berbaum and Metz, Academic "
        "Radiology 2008; methods' seeds are taken to differ alike). The p-value is that of the two-sided Wilcoxon "
        "signed-rank test on the images' differences, averaged over seeds; it asks about the bulk of the images and "
        "takes the trained models as given."
    )
    if len(comparisons) > 1:
        words += (
            f" The {len(comparisons)} p-values are corrected by Holm's method, and the interval of each answer is for all "
            "comparisons at once; those of tables and pictures are for each alone."
        )
    return words + " Rows for kinds of images describe; they are not corrected for their number."


def _effects_table(comparison: Comparison) -> str:
    a, b = comparison.a.label, comparison.b.label
    head = ["images", "number", a, b, "difference", "95 % interval", "Wilcoxon p", "better", "worse", "equal"]
    rows = [["all", *_cells(comparison.overall)]]
    if comparison.comparisons > 1:
        rows[0][6] += f" (Holm {say_p(comparison.p_holm).removeprefix('= ')})"
    rows += [[name, *_cells(found)] for name, found in comparison.parts.items()]
    return _table(head, rows)


def _cells(found: PairedComparison) -> list[str]:
    return [
        str(found.n_images),
        f"{found.mean_a:.4f}",
        f"{found.mean_b:.4f}",
        f"{found.difference:+.4f}",
        f"[{found.ci_low:+.4f}, {found.ci_high:+.4f}]",
        say_p(found.p_value).removeprefix("= "),
        *(f"{share:.0%}" for share in (found.better, found.worse, found.equal)),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    # A column is one of numbers where the first row has one there.
    kinds = [' class="n"' if cell[:1] in "0123456789+-<[" else "" for cell in rows[0]]
    top = "".join(
        f'<th scope="col"{kind}>{escape(cell)}</th>' for cell, kind in zip(head, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{k}>{escape(cell)}</td>" for cell, k in zip(row, kinds, strict=True))
        + "</tr>\n"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _figure(file: Path) -> str:
    caption = CAPTIONS[file.stem.partition("-")[0]]
    content = base64.b64encode(file.read_bytes()).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{content}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
