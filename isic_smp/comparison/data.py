"""The data that runs were scored on, where they are at hand: for diagnoses, and to look at images again."""

import os
from pathlib import Path

from isic_smp.comparison.runs import ScoredRun
from isic_smp.data.division import as_divided
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.source import VARIABLE, resolve_data
from isic_smp.errors import UserError


def find_data(run: ScoredRun, data_dir: Path | None, *, cache_dir: Path) -> LesionData | str:
    """The data that `run` was scored on; where they are not at hand, why, as a clause.

    Args:
        run: any of the compared runs.
        data_dir: the folder to look in; None: `ISIC_SMP_DATA` or ./data/isic2016.
        cache_dir: of drawn pictures and file digests.

    Raises:
        UserError: `data_dir` holds no data, or others. A folder that is named is never passed over.
    """
    name = run.data.get("name")
    if name != "isic2016" and name != "synthetic":
        return f"the runs worked on data of their own ({name or 'unnamed'})"
    try:
        kind = "auto" if data_dir or os.environ.get(VARIABLE) else name
        data, _ = resolve_data(kind, data_dir, cache_dir=cache_dir)  # type: ignore[arg-type]  # one of the two
        # As the run may have read them: grey masks were refused by those that did not.
        data = as_divided(data, run.data.get("fingerprint", ""), cache_dir=cache_dir, binarize_masks=True)
    except UserError as error:
        if data_dir:
            raise
        return str(error)
    if data.fingerprint != run.data.get("fingerprint"):
        problem = f"{data.root.name} holds other data ({data.describe()}) than the runs were scored on"
        if data_dir:
            raise UserError(
                f"{problem} ({run.data.get('description')}): name theirs, or leave out --data-dir"
            )
        return f"{problem}, --data-dir may name theirs"
    return data
