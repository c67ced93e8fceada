"""Packages that an upstream needs and that glowd does not install by itself."""

import importlib
import sys
from types import ModuleType

from glowd.clients.upstream.interface import UpstreamError


def imported(module: str, package: str, extra: str) -> ModuleType:
    """A module. Raises UpstreamError with the command that installs its package."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UpstreamError(
            f"this needs the package {package}, and the module {error.name} is not installed; install it with: "
            f"{sys.executable} -m pip install {package} (or glowd with its extra [{extra}])"
        ) from error
