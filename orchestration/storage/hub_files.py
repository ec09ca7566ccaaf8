"""Files on the Hugging Face hub: ``hf://owner/name/path``, as ``huggingface_hub`` addresses them.

``hf://owner/name@revision/path`` names a revision, ``hf://datasets/owner/name/path`` a data set.
Address and token of the hub are those of ``huggingface_hub`` (``HF_ENDPOINT``, ``HF_TOKEN``).
"""

from http.client import HTTPResponse
from typing import Final
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from orchestration.errors import RecipeError

_KINDS: Final = {"models": "model", "datasets": "dataset", "spaces": "space"}
_FORM: Final = "hf://owner/name/path, or hf://owner/name@revision/path"


def open_hub_file(uri: str, timeout_s: float) -> tuple[int, str, HTTPResponse]:
    """Return size, ETag and open body of a file on the hub.

    Raises:
        RecipeError: the URI does not name a file, or the hub reports no size or version.
        OSError: the hub does not answer, or refuses.
    """
    from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url

    kind, owner, name, revision, path = _parts(uri)
    url = hf_hub_url(f"{owner}/{name}", path, repo_type=kind, revision=revision)
    token = get_token()
    try:
        found = get_hf_file_metadata(url, token=token, timeout=timeout_s)
    except Exception as error:  # the hub's client raises errors of its HTTP library
        raise OSError(_first_line(error)) from error
    if found.size is None or found.etag is None:
        raise RecipeError(f"{uri}: the hub reports no size or version; give the file by path")
    request = Request(found.location, headers={"Accept-Encoding": "identity"})
    if token and urlsplit(found.location).netloc == urlsplit(url).netloc:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return found.size, found.etag, urlopen(request, timeout=timeout_s)


def _parts(uri: str) -> tuple[str, str, str, str | None, str]:
    """Return kind, owner, name, revision and path; the hub's own names hold no slash."""
    names = uri.removeprefix("hf://").split("/")
    kind = _KINDS[names.pop(0)] if names[0] in _KINDS else "model"
    if len(names) < 3 or not all(names):
        raise RecipeError(f"{uri}: does not name a file on the hub; write {_FORM}")
    name, _, revision = names[1].partition("@")
    return kind, names[0], name, unquote(revision) or None, "/".join(names[2:])


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
