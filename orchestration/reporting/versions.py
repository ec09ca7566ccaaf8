"""Versions of the programs that a workflow ran with."""

import platform
import re
from importlib import metadata
from typing import Final

_PROJECT: Final = "beit3-pipeline"
_NAME: Final = re.compile(r"[\w.-]+")


def installed_versions() -> dict[str, str]:
    """Return the versions of Python, of this project and of the packages that it requires.

    Packages of extras are left out, and so is one that is not installed.
    """
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    try:
        versions[_PROJECT] = metadata.version(_PROJECT)
        required = metadata.requires(_PROJECT) or []
    except metadata.PackageNotFoundError:  # the code is on the path without an installation
        return versions
    for requirement in sorted(required):
        found = _NAME.match(requirement)
        if found is None or "extra ==" in requirement:
            continue
        try:
            versions[found[0]] = metadata.version(found[0])
        except metadata.PackageNotFoundError:
            continue
    return versions
