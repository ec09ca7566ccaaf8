"""Exceptions that cross processes keep their arguments."""

import importlib
import pickle
import pkgutil

import pytest

import dataprep
from dataprep.fetch import FetchError
from dataprep.images import ImageError
from dataprep.sources.zips import MemberError


def exceptions_of_dataprep() -> list[type[Exception]]:
    for module in pkgutil.walk_packages(dataprep.__path__, "dataprep."):
        importlib.import_module(module.name)
    found, new = set[type[Exception]](), [Exception]
    while new:
        new = [each for parent in new for each in parent.__subclasses__() if each not in found]
        found.update(new)
    ours = [each for each in found if each.__module__.startswith("dataprep.")]
    return sorted(ours, key=lambda each: each.__name__)


def arguments_of(kind: type[Exception]) -> list[str]:
    """One text for each argument that the exception needs, and one for those that take any."""
    if not hasattr(kind.__init__, "__code__"):
        return ["text"]
    code = kind.__init__.__code__
    needed = code.co_argcount - 1 - len(kind.__init__.__defaults__ or ())
    return [f"text {number}" for number in range(needed)]


@pytest.mark.parametrize("kind", exceptions_of_dataprep())
def test_every_exception_of_data_preparation_survives_pickling(kind):
    error = kind(*arguments_of(kind))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) and vars(again) == vars(error)


@pytest.mark.parametrize(
    "error", [ImageError("a", "b"), MemberError("a", "b"), FetchError("a", "b", retry_after_s=3)]
)
def test_exceptions_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) == "a: b"
    assert vars(again) == vars(error)
