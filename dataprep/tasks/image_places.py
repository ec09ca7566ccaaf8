"""Images of examples: looked up in folders and zip archives by the names that a file gives them.

A name is a relative path. In an archive, the folders that all of its members are in may be missing
from it. What is not found as it is spelled is looked for with ``/`` in place of ``\\``, and in
Unicode's composed and decomposed form: lists are made on Windows, archives on a Mac.

| search | what else is found |
|---|---|
| ``exact`` | nothing |
| ``ends`` | ``train/27/a.png`` as ``27/a.png`` or ``a.png``, where file names are unique |
| ``anywhere`` | files outside of the folder, by absolute paths or ``..`` |

Only a list of the user's own, on this machine, may choose which files of it are read.
"""

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from posixpath import normpath
from typing import Literal

from dataprep.sources.folders import FolderFiles, read_file
from dataprep.sources.members import MISSING_FILE, MemberError
from dataprep.sources.names import member_path, safe_name
from dataprep.sources.zips import Member, ZipDirectory, ZipSet

Search = Literal["exact", "ends", "anywhere"]


def class_member_names(path: Path) -> list[str]:
    """Return the sorted names of the members of a zip archive, without folders common to all.

    If all members lie in one folder, it is the folder of a class, and stays.

    Raises:
        zipfile.BadZipFile: the file is not a zip archive; the message names it.
    """
    names = _names(ZipDirectory([path])).values()
    num_common = _num_common(names)
    if all(name.count("/") == num_common for name in names):
        num_common = max(num_common - 1, 0)
    return sorted(_without(name, num_common) for name in names)


class ImageMembers:
    """The members of the zip archives among some places."""

    def __init__(self, places: Sequence[Path], search: Search) -> None:
        """Read the directories of the archives.

        Raises:
            zipfile.BadZipFile: a place is neither a folder nor a zip archive; the message names it.
        """
        directory = ZipDirectory([place for place in places if not place.is_dir()])
        self._search = search
        self._members = directory.members
        self._shortened: dict[str, list[Member]] = {}
        names = _names(directory)
        for archive in {member.archive for member in names}:
            mine = {member: name for member, name in names.items() if member.archive == archive}
            for num_folders in range(1, _num_common(mine.values()) + 1):
                for member, name in mine.items():
                    self._shortened.setdefault(_without(name, num_folders), []).append(member)

    def find(self, name: str, *, is_whole: bool = False) -> Sequence[Member]:
        """Return the members of an image's name; none if it is in no archive.

        Args:
            name: the name.
            is_whole: whether its ends find nothing.
        """
        if self._search == "anywhere":
            name = normpath(member_path(name))
        for end in _ends(name, "exact" if is_whole else self._search):
            if found := self._members.get(end) or self._shortened.get(end):
                return found
        return ()


class Images:
    """Reads images by name."""

    def __init__(
        self,
        places: Sequence[Path],
        members: Mapping[str, Sequence[Member]],
        search: Search,
        whole_names: Collection[str] = (),
    ) -> None:
        """Open the archives.

        Args:
            places: folders and zip archives.
            members: what :class:`ImageMembers` found for each name that will be read.
            search: how names are looked up in folders.
            whole_names: names whose ends find nothing.

        Raises:
            zipfile.BadZipFile: a file is not the archive that it was; the message names it.
        """
        self._shown = ", ".join(place.name for place in places)
        self._folders = [place for place in places if place.is_dir()]
        self._zips = ZipSet([place for place in places if not place.is_dir()], members)
        self._search, self._whole_names = search, frozenset(whole_names)

    def read(self, name: str) -> bytes:
        """Return the bytes of an image's file.

        Raises:
            MemberError: the image is missing, damaged, too large, or there are several of its name.
        """
        if name in self._zips.names:
            return self._zips.read(name)
        search = "exact" if name in self._whole_names else self._search
        for end in _ends(name, search):
            for folder in self._folders:
                try:
                    return self._read(folder, end)
                except MemberError as error:
                    if error.reason != MISSING_FILE:
                        raise
        raise MemberError(MISSING_FILE, f"{safe_name(name)} is not in {self._shown}")

    def _read(self, folder: Path, name: str) -> bytes:
        try:
            if self._search != "anywhere":
                return FolderFiles(folder).read(name)
            return read_file(folder / name, safe_name(name))
        except MemberError:
            raise
        except ValueError:  # a zero byte, or half of a surrogate pair
            raise MemberError(MISSING_FILE, safe_name(name)) from None


def _ends(name: str, search: Search) -> Iterator[str]:
    """Yield a name, then what is left of it without each of its leading folders."""
    portable = name.replace("\\", "/")
    forms = [portable, common_spelling(name), unicodedata.normalize("NFD", portable)]
    for end in dict.fromkeys([name, *forms]):
        yield end
        while search == "ends" and "/" in end:
            end = end.partition("/")[2]
            yield end


def common_spelling(name: str) -> str:
    """Return the one of all spellings of a name that stands for them."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _names(directory: ZipDirectory) -> dict[Member, str]:
    """Return the name of each member; of two readings of its bytes, UTF-8 is the shorter one."""
    names: dict[Member, str] = {}
    for name, members in directory.members.items():
        for member in members:
            names[member] = min(name, names.get(member, name), key=len)
    return names


def _num_common(names: Iterable[str]) -> int:
    """Return the number of folders that are common to all names."""
    folders = [name.split("/")[:-1] for name in names]
    pairs = zip(min(folders, default=[]), max(folders, default=[]), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _without(name: str, num_folders: int) -> str:
    return "/".join(name.split("/")[num_folders:])
