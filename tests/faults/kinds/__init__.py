"""Kinds of bad data: each a name, a way to make it in a folder, what is then called, and what must come of it.

A kind is `(call, expected)`. `call` takes no argument. `expected` is
- REFUSED: exactly one UserError, on one line;
- EITHER: that, or any result, for what decoders of different versions may or may not see through;
- a function: of the result, true where it is right.
"""

from .archives import archives
from .images import images, special_files
from .made import EITHER, REFUSED, Maker
from .masks import masks
from .models import models
from .pairs import pairs
from .settings import settings

__all__ = ["EITHER", "REFUSED", "all_kinds"]


def all_kinds() -> list[tuple[str, Maker]]:
    sources = (images, special_files, masks, pairs, archives, settings, models)
    return [(f"{source.__name__}: {words}", maker) for source in sources for words, maker in source()]
