"""What commands call data and groups of pictures. Imports nothing: a command's `--help` must answer at once."""

from typing import Literal, get_args

ISIC2016, SYNTHETIC = "isic2016", "synthetic"
"""What the data are called that are kept with a run or a model."""

Data = Literal["auto", "isic2016", "synthetic"]
"""auto: ISIC 2016 where it is found, else drawn pictures (`data.source`)."""

Group = Literal["faint", "small", "cut", "cool", "hard"]
"""Pictures that are told apart by their pixels (`data.groups`): little contrast, small lesions, lesions cut by the frame, cool light, any of these."""

DIAGNOSIS = "diagnosis:"
"""Begins the name of a group that is told by the table beside the pictures (`data.diagnoses`)."""

HELD_OUT = f"{{{','.join(get_args(Group))},{DIAGNOSIS}NAME}}"
"""What can be held out (`data.held_out`), as `--help` has it."""
