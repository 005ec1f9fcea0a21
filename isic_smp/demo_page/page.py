"""The Gradio page: what stands where, and what happens when something on it is touched."""

from pathlib import Path
from typing import Any

import gradio as gr

from isic_smp.demo_page.models import Models
from isic_smp.demo_page.session import MAX_IMAGES, Session, look_at

MAX_MODELS = 4
"""Side by side, more become too narrow to see."""

NOTE = (
    "<h1>Lesion outline</h1>"
    "<p>Marks the lesion in dermoscopy images, and measures it.</p>"
    '<p class="warning"><strong>Not a medical device.</strong> For research and teaching only: '
    "it does not diagnose, and must not be used for medical decisions.</p>"
)
HELP = (
    "<details><summary>What the numbers mean</summary>"
    "<p><b>Threshold</b>: the model gives each pixel a probability of being lesion; the outline runs "
    "where it crosses the threshold. Lower it and the outline grows, raise it and it shrinks.</p>"
    "<p><b>Lesion area</b>: pixels inside the outline. Without a scale in the image it is no size in millimetres.</p>"
    "<p><b>Confidence</b>: how probable the model holds the pixels inside the outline to be lesion, on average. "
    "It is the model's opinion of itself, not the chance that the outline is right.</p>"
    "<p><b>Dice</b>: how far two areas overlap, from 0 (nowhere) to 1 (the same). Validation Dice is the mean "
    "over images with outlines by experts, of the model's own validation set.</p>"
    "<p>Images go to the computer that serves this page and no further; it deletes them when the program ends.</p></details>"
)
# Fonts of the visitor's own system: a theme's default ones would be one more thing to fetch.
FONTS = ("system-ui", "-apple-system", "Segoe UI", "sans-serif")
SHOW_OUTLINES = "(on) => { document.body.classList.toggle('without-outlines', !on); }"


def build_page(models: Models) -> gr.Blocks:
    """The page for these models; each visitor's images are their own."""
    with gr.Blocks(title="Lesion outline", analytics_enabled=False, fill_width=True) as page:
        session = gr.State(Session())
        with gr.Row(elem_id="page"):
            with gr.Column(scale=1, min_width=340, elem_id="controls"):
                gr.HTML(NOTE, elem_id="note")
                files = gr.File(
                    label=f"Images, up to {MAX_IMAGES}",
                    file_count="multiple",
                    elem_id="files",
                )
                chosen = gr.Dropdown(
                    [(choice.label, choice.spec) for choice in models.choices],
                    value=list(models.start)[:MAX_MODELS],
                    multiselect=True,
                    max_choices=MAX_MODELS,
                    visible=len(models.choices) > 1,
                    label="Models, shown side by side",
                    elem_id="models",
                )
                threshold = gr.Slider(
                    0.01,
                    0.99,
                    value=models.predictor(models.start[0]).preprocessing.threshold,
                    step=0.01,
                    label="Threshold",
                    info="lower: larger outline; higher: smaller outline",
                    elem_id="threshold",
                )
                outlines = gr.Checkbox(True, label="Show the outline", elem_id="outlines")
                gr.HTML(HELP, elem_id="help")
            with gr.Column(scale=3, min_width=320):
                photos = gr.HTML(visible="hidden")
                results = gr.HTML(Session().results(models, 0.5), elem_id="results", min_height=200)

        def look(former: Session, paths: list[str] | None, specs: list[str]) -> tuple[Session, str]:
            now = look_at(former, paths or [], specs, models)
            return now, now.photos()

        def tell(now: Session, threshold: float) -> str:
            return now.results(models, threshold)

        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        for control in (files, chosen):
            # The results are told after it, at the threshold that the slider has by then.
            control.change(
                look,
                [session, files, chosen],
                [session, photos],
                show_progress="full",
                show_progress_on=results,
                trigger_mode="always_last",
                api_visibility="private",
            ).then(tell, [session, threshold], results, **quiet)
        threshold.change(tell, [session, threshold], results, trigger_mode="always_last", **quiet)
        outlines.change(None, outlines, None, js=SHOW_OUTLINES, **quiet)
    return page


def style() -> str:
    """The page's style sheet."""
    return Path(__file__).with_name("style.css").read_text(encoding="utf-8")


def theme() -> gr.themes.Base:
    """Plain colours, and fonts that nobody needs to fetch."""
    return gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=("monospace",))
