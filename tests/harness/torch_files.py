"""PyTorch files for tests."""

import zipfile
from pathlib import Path


def zip_with_pickle(path: Path, program: bytes) -> Path:
    """A PyTorch zip file whose object is the given pickle program."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    return path
