"""Which data a command works on: ISIC 2016 where it is found, otherwise pictures the package draws itself."""

import os
import sys
from pathlib import Path

from isic_smp import __version__
from isic_smp.data.isic2016 import LesionData, has_isic2016, load_isic2016
from isic_smp.data.names import Data
from isic_smp.data.synthetic import is_synthetic, load_synthetic, make_synthetic
from isic_smp.errors import UserError
from isic_smp.folder_lock import one_at_a_time

VARIABLE = "ISIC_SMP_DATA"
DEFAULT_DIR = Path("data") / "isic2016"


def default_cache_dir() -> Path:
    """Where decoded pixels and the like are kept: ISIC_SMP_CACHE, or `isic_smp` in the user's cache folder."""
    chosen = os.environ.get("ISIC_SMP_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(base) / "isic_smp"


def resolve_data(data: Data, data_dir: Path | None, *, cache_dir: Path) -> tuple[LesionData, bool]:
    """The data to work on, and whether it is synthetic only because no other was found.

    The data are looked for in `data_dir`, else in the folder that the environment variable
    `ISIC_SMP_DATA` names, else in ./data/isic2016. With "auto", and nothing named or found, synthetic
    pictures stand in, which one line on stderr says. A folder that is named is never passed over; "synthetic" looks in `data_dir` alone.

    Args:
        data: "isic2016" or "synthetic" and nothing else; "auto" takes either from a named folder.
        data_dir: the folder of the data; for "synthetic", one that `python -m isic_smp.data synthetic` made.
        cache_dir: where synthetic pictures are kept, once for all processes, and digests of files.

    Raises:
        UserError: a named folder that is not there or holds no such data; broken data; no ISIC 2016
            where "isic2016" was asked for.
    """
    if data == "synthetic":
        return (load_synthetic(data_dir) if data_dir else _own_pictures(cache_dir)), False
    if data_dir:
        named, by = data_dir, "--data-dir"
    elif os.environ.get(VARIABLE):
        named, by = Path(os.environ[VARIABLE]), VARIABLE
    elif has_isic2016(DEFAULT_DIR):
        return load_isic2016(DEFAULT_DIR, cache_dir=cache_dir), False
    elif data == "isic2016":
        raise UserError(
            f"no ISIC 2016 data: expected it in --data-dir, in the folder {VARIABLE} names, or in "
            f"./{DEFAULT_DIR}; `python -m isic_smp.data download` fetches it"
        )
    else:
        _say_loudly()
        return _own_pictures(cache_dir), True
    if not named.is_dir():
        raise UserError(f"the data folder {named} (from {by}) does not exist")
    if data == "auto" and is_synthetic(named):
        return load_synthetic(named), False
    return load_isic2016(named, cache_dir=cache_dir), False


def _own_pictures(cache_dir: Path) -> LesionData:
    """The package's own pictures, drawn when first asked for; processes that start together share them."""
    folder = cache_dir / f"synthetic-{__version__}"  # another version may draw otherwise
    with one_at_a_time(cache_dir, lock=".synthetic.lock"):
        if not folder.is_dir():
            # Few enough for the default recipe to be through with them in three minutes on two cores without bf16.
            make_synthetic(folder, train=32, val=16)
    return load_synthetic(folder)


def _say_loudly() -> None:
    alone = os.environ.get("WORLD_SIZE", "1") in ("", "1")
    if alone or os.environ.get("RANK", "0") == "0":  # one of several processes of a run is enough
        print(
            f"!!! NO ISIC 2016 DATA FOUND (no --data-dir, no {VARIABLE}, no ./{DEFAULT_DIR}): using "
            "SYNTHETIC pictures, a demonstration and not a result. "
            "`python -m isic_smp.data download` fetches the real ones.",
            file=sys.stderr,
        )
