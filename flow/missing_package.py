"""What a program says when a package is not installed: one line with the package and the command that installs it.

Rules: standard library only. Commands import packages where they need them; a program's `main` catches ModuleNotFoundError.
"""

import sys

PACKAGE_OF_MODULE = {"zmq": "pyzmq"}


def advice(program: str, error: ModuleNotFoundError) -> str:
    """The line for a user. Raises `error` again if the module is one of ours: then it is our mistake."""
    module = (error.name or "").partition(".")[0]
    if module in ("", "glowd"):
        raise error
    package = PACKAGE_OF_MODULE.get(module, module)
    return (
        f"{program}: this command needs the package {package}, which is not installed; "
        f"install it with: {sys.executable} -m pip install {package}"
    )
