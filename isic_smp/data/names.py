"""What commands call data and groups of pictures. Imports nothing: a command's `--help` must answer at once."""

from typing import Literal

Data = Literal["auto", "isic2016", "synthetic"]
"""auto: ISIC 2016 where it is found, else drawn pictures (`data.source`)."""

Group = Literal["faint", "small", "cut", "cool", "hard"]
"""Pictures that can be held out (`data.groups`): little contrast, small lesions, lesions cut by the frame, cool light, any of these."""
