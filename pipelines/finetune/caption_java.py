"""The metrics of captions that run in Java: the Penn Treebank tokenizer, METEOR, SPICE.

The programs lie in the package ``pycocoevalcap``, which writes temporary files into its own folder;
here they are written elsewhere, so that the package may be read-only. SPICE needs two archives of
Stanford CoreNLP, which are used if they lie where the package would download them to, and are not
downloaded.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Timer
from typing import Final

_TOKENIZER: Final = "edu.stanford.nlp.process.PTBTokenizer"
_TIMEOUT_S: Final = 3600
"Longest run of one program."
_BARS: Final = "|||"
"Separates the fields of METEOR's lines."

Texts = Mapping[int, Sequence[str]]


class JavaError(RuntimeError):
    """A program cannot run; the message is one line that says why."""


def tokenized(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Return captions and references as the published metrics split them.

    They are in lower case, without punctuation, with spaces between the tokens.

    Raises:
        JavaError: the tokenizer cannot run.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import (
        PUNCTUATIONS,
        STANFORD_CORENLP_3_4_1_JAR,
    )

    texts = [*captions, *(text for some in references for text in some)]
    jar = _package("tokenizer") / STANFORD_CORENLP_3_4_1_JAR
    options = ("-cp", str(jar), _TOKENIZER, "-preserveLines", "-lowerCase", "-encoding", "UTF-8")
    written = "".join(f"{' '.join(text.split())}\n" for text in texts)
    lines = _run("the tokenizer", options, jar, written).split("\n")[: len(texts)]
    if len(lines) < len(texts):
        raise JavaError(f"the tokenizer returned {len(lines)} lines of {len(texts)} captions")
    split = [" ".join(w for w in line.split() if w not in PUNCTUATIONS) for line in lines]
    rest = iter(split[len(captions) :])
    return split[: len(captions)], [[next(rest) for _ in some] for some in references]


def meteor(references: Texts, captions: Texts) -> float:
    """Return METEOR of tokenized captions by image, as the scorers of ``pycocoevalcap`` take them.

    Raises:
        JavaError: the program cannot run.
    """
    from pycocoevalcap.meteor.meteor import METEOR_JAR, Meteor

    _check(_package("meteor") / METEOR_JAR)
    try:
        scorer = Meteor()
    except OSError as error:
        raise JavaError(f"METEOR failed: {error}") from None
    late = Event()

    def end() -> None:
        late.set()
        scorer.meteor_p.kill()

    watch = Timer(_TIMEOUT_S, end)
    watch.daemon = True
    watch.start()  # the scorer waits for its program without an end
    try:
        score, _ = scorer.compute_score(_without_bars(references), _without_bars(captions))
    except (OSError, ValueError) as error:
        scorer.lock.release()  # it holds the lock, for which it waits when it is deleted
        with suppress(OSError):
            scorer.meteor_p.stdin.close()
        words = f"it ran longer than {_TIMEOUT_S} seconds" if late.is_set() else str(error)
        raise JavaError(f"METEOR failed: {words}") from None
    finally:
        watch.cancel()
    return float(score)


def spice(references: Texts, captions: Texts) -> float:
    """Return SPICE; arguments and errors are those of :func:`meteor`."""
    from pycocoevalcap.spice.get_stanford_models import JAR
    from pycocoevalcap.spice.spice import SPICE_JAR

    jar = _package("spice") / SPICE_JAR
    for library in (f"{JAR}.jar", f"{JAR}-models.jar"):
        if not (jar.parent / "lib" / library).is_file():
            raise JavaError(f"SPICE needs {library} in {jar.parent / 'lib'}")
    rows = [
        {"image_id": i, "test": captions[i][0], "refs": list(references[i])} for i in references
    ]
    with tempfile.TemporaryDirectory() as folder:
        given, made, cache = (Path(folder) / name for name in ("in.json", "out.json", "cache"))
        given.write_text(json.dumps(rows))
        cache.mkdir()
        options = ("-jar", "-Xmx8G", str(jar), str(given), "-cache", str(cache))
        _run("SPICE", (*options, "-out", str(made), "-subset", "-silent"), jar)
        found = [row["scores"]["All"]["f"] for row in json.loads(made.read_text())]
    return sum(found) / len(found)


def _package(part: str) -> Path:
    """Return the folder of a part of ``pycocoevalcap``."""
    import pycocoevalcap

    return Path(next(iter(pycocoevalcap.__path__))) / part


def _check(jar: Path) -> str:
    """Return the path of Java; JavaError if Java or the program's archive is not there."""
    if (java := shutil.which("java")) is None:
        raise JavaError("java is not on the PATH")
    if not jar.is_file():
        raise JavaError(f"{jar} is missing; install pycocoevalcap again")
    return java


def _run(name: str, options: Sequence[str], jar: Path, written: str = "") -> str:
    """Run a program and return what it writes; JavaError if it fails."""
    java = _check(jar)
    try:
        done = subprocess.run(
            [java, *options], input=written.encode(), capture_output=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JavaError(f"{name} failed: {error}") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise JavaError(f"{name} failed with code {done.returncode}: {words[0][:200]}")
    return done.stdout.decode()


def _without_bars(texts: Texts) -> dict[int, list[str]]:
    return {i: [text.replace(_BARS, " ") for text in some] for i, some in texts.items()}
