"""Check that every pinned dependency has a wheel for each supported Python version.

    python .ci/check_wheels.py [requirements.lock]

Asks pip to resolve the lock file for each version on this platform, without building anything from
source and without installing anything. Needs the network and downloads the larger wheels; not a
part of `make test`. Exit code 1 if a wheel is missing; pip names the requirement.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13")
FROM_SOURCE = "fairscale"
"Published as source only and needed by tests alone."


def main() -> None:
    """Check each version and print one line per version."""
    lock = Path(sys.argv[1] if len(sys.argv) > 1 else "requirements.lock")
    wheels = [line for line in lock.read_text().splitlines() if not line.startswith(FROM_SOURCE)]
    failed = [version for version in VERSIONS if not all_have_wheels(version, wheels)]
    for version in VERSIONS:
        state = "missing wheels" if version in failed else f"{len(wheels)} wheels"
        sys.stdout.write(f"Python {version}: {state}\n")
    sys.exit(bool(failed))


def all_have_wheels(version: str, requirements: list[str]) -> bool:
    """Return whether pip finds a wheel of each requirement for a Python version."""
    with tempfile.TemporaryDirectory() as temporary:
        listed = Path(temporary) / "requirements.txt"
        listed.write_text("\n".join(requirements))
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps",
            "--no-cache-dir", "--only-binary=:all:", "--python-version", version,
            "--target", f"{temporary}/target", "--requirement", str(listed),
        ]  # fmt: skip
        return subprocess.run(command).returncode == 0


if __name__ == "__main__":
    main()
