"""Where libraries that compile while they run keep their machine code: in the usual place, or in the run directory.

Rules: sets environment variables, before the libraries are imported; says nothing, because nothing is wrong. A service user
often has no home that can be written, and librosa, for one, cannot be imported then: numba refuses to compile what it was
told to keep. The run directory can be written, or no daemon would run. It is private, as it must be: code is loaded from it.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

MIN_FREE_BYTES = 32 << 20


def place_caches(run_dir: Path) -> None:
    """Let numba and Triton keep machine code in `run_dir`, unless they can where the user or they themselves choose to."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  (Path.home() raises for a user without a home)
    usual = {
        "NUMBA_CACHE_DIR": Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "numba",
        "TRITON_CACHE_DIR": home / ".triton" / "cache",
    }
    for variable, place in usual.items():
        if not can_write(Path(os.environ.get(variable) or place)):
            os.environ[variable] = str(run_dir / variable.split("_")[0].lower())


def can_write(directory: Path) -> bool:
    """Whether files can be written in a directory, or it can be made. It is tried: permissions do not tell all."""
    if not directory.is_absolute():  # the home of a user without one is "~"
        return False
    with contextlib.suppress(OSError):
        present = next(path for path in (directory, *directory.parents) if path.exists())
        Path(tempfile.mkdtemp(dir=present)).rmdir()
        return shutil.disk_usage(present).free >= MIN_FREE_BYTES
    return False
