"""Proxies that the environment names: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``.

Behind a proxy the fetcher resolves no name, so it can refuse only addresses that are written in a
URL and names under ``localhost``; which hosts a name may lead to is the proxy's to decide.
"""

from collections.abc import Mapping
from typing import Final
from urllib import request

from yarl import URL

_SCHEMES: Final = ("http", "https")


class Proxies:
    """The proxy of each URL."""

    def __init__(self, named: Mapping[str, str]) -> None:
        """Take proxies by scheme, with ``all`` and ``no`` as ``urllib`` names them.

        Raises:
            ValueError: a proxy is not an HTTP proxy.
        """
        self._named = dict(named)
        self.by_scheme: dict[str, URL] = {}
        for scheme in _SCHEMES:
            text = named.get(scheme) or named.get("all")
            if text:
                self.by_scheme[scheme] = _parsed(scheme, text)

    @classmethod
    def of_environment(cls) -> "Proxies":
        """Return the proxies that the environment variables name.

        Raises:
            ValueError: a proxy is not an HTTP proxy.
        """
        return cls(request.getproxies_environment())

    def of(self, url: URL) -> URL | None:
        """Return the proxy for a URL, or None for a direct connection."""
        proxy = self.by_scheme.get(url.scheme)
        host_and_port = f"{url.raw_host}:{url.port}"
        bypass = request.proxy_bypass_environment  # type: ignore[attr-defined]
        return None if proxy is None or bypass(host_and_port, self._named) else proxy

    def words(self) -> str:
        """Return which URLs go through which proxy, without passwords; empty without a proxy."""
        shown = [
            f"{scheme}:// through {proxy.with_user(None)}"
            for scheme, proxy in sorted(self.by_scheme.items())
        ]
        direct = self._named.get("no")
        return ", ".join(shown) + (f"; not for {direct}" if shown and direct else "")

    def addresses(self) -> set[tuple[str, int]]:
        """Return the host and port of each proxy."""
        return {(proxy.raw_host or "", proxy.port or 0) for proxy in self.by_scheme.values()}


def _parsed(scheme: str, text: str) -> URL:
    try:
        proxy = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        proxy = URL()
    if proxy.scheme not in _SCHEMES or not proxy.raw_host:
        raise ValueError(
            f"the proxy for {scheme}:// in the environment ({proxy.scheme or 'no'} scheme) is not "
            "an HTTP proxy; set HTTP_PROXY and HTTPS_PROXY to http://HOST:PORT, or unset them"
        )
    return proxy
