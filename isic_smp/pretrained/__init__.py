"""The model that comes with the package, in `isic2016/`, and how it was put there (`make.py`)."""
