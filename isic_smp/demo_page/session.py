"""What one visitor has put on the page, and what the models said of it."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from isic_smp.data.images import decode_image
from isic_smp.demo_page import cards
from isic_smp.demo_page.analysis import Answer, analyse, draw
from isic_smp.demo_page.models import Models
from isic_smp.errors import UserError
from isic_smp.inference.finish import finished

MAX_IMAGES = 24
"""Images on the page at once: a move of the threshold draws all of them."""


@dataclass(frozen=True)
class Seen:
    """One image, with the answer of each model that was asked."""

    name: str
    key: str
    """Ties the photograph to its place on the page."""
    height_width: tuple[int, int]
    css: str
    """Shows the photograph."""
    answers: Mapping[str, Answer | str]
    """By model spec: what it said, or why it said nothing."""


@dataclass(frozen=True)
class Session:
    """Everything that is on the page."""

    images: Mapping[str, Seen] = field(default_factory=dict)
    """By path of the uploaded file, in order."""
    models: Sequence[str] = ()
    problems: Sequence[str] = ()

    def photos(self) -> str:
        """The style sheet with the photographs."""
        return f"<style>{''.join(seen.css for seen in self.images.values())}</style>" if self.images else ""

    def results(self, models: Models, threshold: float) -> str:
        """Everything that is said of the images, at a threshold."""
        shown = []
        for seen in self.images.values():
            looks = [_look(models, spec, seen, threshold) for spec in self.models]
            shown.append(cards.case(seen.key, seen.name, seen.height_width, looks))
        said = cards.problems(self.problems)
        return said + "".join(shown) if shown or said else cards.nothing_yet()


def look_at(former: Session, files: Iterable[str], specs: Sequence[str], models: Models) -> Session:
    """The session with these files and models; only what `former` has not seen is computed.

    Args:
        former: the session before.
        files: paths of images.
        specs: models to ask, side by side.
        models: where they are.
    """
    paths = list(dict.fromkeys(files))
    said = [] if specs or not paths else ["Choose at least one model."]
    if len(paths) > MAX_IMAGES:
        said.append(f"{len(paths)} images: the first {MAX_IMAGES} are shown.")
    images: dict[str, Seen] = {}
    for path in paths[:MAX_IMAGES]:
        try:
            images[path] = _see(path, former.images.get(path), specs, models)
        except UserError as error:
            said.append(str(error))
    return Session(images, tuple(specs), tuple(said))


def _see(path: str, known: Seen | None, specs: Sequence[str], models: Models) -> Seen:
    answers = dict(known.answers) if known else {}
    # A model that could not be loaded is asked again.
    missing = [spec for spec in specs if not isinstance(answers.get(spec), Answer)]
    if known and not missing:
        return known
    pixels = _read(path)
    answers |= {spec: _ask(models, spec, pixels) for spec in missing}
    if known:
        return replace(known, answers=answers)
    key = hashlib.sha256(path.encode()).hexdigest()[:16]
    return Seen(Path(path).name, key, pixels.shape[:2], cards.photo_css(key, pixels), answers)


def _look(models: Models, spec: str, seen: Seen, threshold: float) -> cards.Look:
    answer = seen.answers[spec]
    if isinstance(answer, str):
        return cards.Look(models.label(spec), None, answer)
    probabilities = finished(*answer, models.predictor(spec).preprocessing, threshold)
    drawing = draw(probabilities, seen.height_width, threshold=threshold)
    expected_iou = models.expected_iou(spec)
    expected = expected_iou.of(probabilities, threshold) if expected_iou else None
    return cards.Look(models.label(spec), models.score(spec), drawing, expected)


def _ask(models: Models, spec: str, pixels: np.ndarray) -> Answer | str:
    try:
        return analyse(pixels, models.predictor(spec))
    except UserError as error:
        return str(error)


def _read(path: str) -> np.ndarray:
    """The image, named in errors as its owner knows it and not by where it was uploaded to."""
    name = Path(path).name
    try:
        with Path(path).open("rb") as stream:
            return decode_image(stream, name)
    except OSError as error:
        raise UserError(f"cannot read the image {name}: {error.strerror or error}") from None
