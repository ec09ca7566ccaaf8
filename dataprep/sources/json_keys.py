"""Whether the JSON lines of a file have the keys that a recipe names."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dataprep.sources.lines import ListError, first_lines

_MAX_SHOWN: Final = 10


def check_keys(path: Path, keys: Sequence[str]) -> None:
    """Check that some object at the beginning of a file has all of the keys.

    Single lines without them are the reader's to reject; a file without any line that has them
    would lose every row.

    Raises:
        ListError: the file is not UTF-8 text, is a JSON array, or begins with objects of which none
            has all of the keys; the message names the keys that they have.
    """
    found: Counter[str] = Counter()
    missing = set(keys)
    lines = first_lines(path)
    for line in lines:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict):
            if all(key in values for key in keys):
                return
            found.update(values.keys())
            missing = {key for key in keys if key not in found}
    if not found and lines and lines[0].lstrip().startswith("["):
        raise ListError(
            f"{path}: a JSON array, expected an object per line; convert it (jq -c '.[]')"
        )
    if found:
        names = ", ".join(name for name, _ in found.most_common(_MAX_SHOWN))
        wanted = ", ".join(key for key in keys if key in missing) or " together with ".join(keys)
        raise ListError(f"{path}: no line at its beginning has {wanted}; it has {names}")
