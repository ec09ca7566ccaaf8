"""Images of examples in folders and archives, and the names of class folders."""

import unicodedata
import zipfile

import pytest

from dataprep.sources.lines import ListError
from dataprep.sources.members import MemberError
from dataprep.tasks.class_folder import read_class_folder
from dataprep.tasks.image_places import ImageMembers, Images, class_member_names


def zipped(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, f"bytes of {name}")
    return path


def read(places, search, name):
    members = ImageMembers(places, search)
    return Images(places, {name: found} if (found := members.find(name)) else {}, search).read(name)


@pytest.fixture
def places(tmp_path):
    for name in ("folder/train/27/a.png", "folder/b.png", "outside.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"bytes of {name}")
    one = zipped(tmp_path / "one.zip", "images/train/1/c.png", "images/train/2/d.png")
    return [tmp_path / "folder", one, zipped(tmp_path / "two.zip", "e.png", "val/f.png")]


@pytest.mark.parametrize(
    ("name", "search", "found"),
    [
        ("train/27/a.png", "exact", "folder/train/27/a.png"),
        ("images/train/27/a.png", "ends", "folder/train/27/a.png"),
        ("val2014/b.png", "ends", "folder/b.png"),
        ("images/train/1/c.png", "exact", "images/train/1/c.png"),
        ("train/1/c.png", "exact", "images/train/1/c.png"),
        ("2/d.png", "exact", "images/train/2/d.png"),
        ("train/9/val/f.png", "ends", "val/f.png"),
        ("e.png", "exact", "e.png"),
        ("../outside.png", "anywhere", "outside.png"),
        ("train\\27\\a.png", "anywhere", "folder/train/27/a.png"),
        ("train\\27\\a.png", "exact", "folder/train/27/a.png"),
        ("C:\\x\\27\\..\\b.png", "ends", "folder/b.png"),
        ("C:\\x\\train\\1\\c.png", "ends", "images/train/1/c.png"),
    ],
)
def test_an_image_is_found_by_its_name(places, name, search, found):
    assert read(places, search, name).decode() == f"bytes of {found}"


@pytest.mark.parametrize("search", ["exact", "ends", "anywhere"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_an_image_is_found_by_its_name_in_either_form_of_unicode(tmp_path, search, kind, forms):
    stored, asked = (unicodedata.normalize(form, "f/caf\u00e9.png") for form in forms)
    place = tmp_path / "images"
    if kind == "zip":
        zipped(place, stored, "f/b.png", "c.png")
    else:
        (place / stored).parent.mkdir(parents=True)
        (place / stored).write_text(f"bytes of {stored}")
    assert read([place], search, asked).decode() == f"bytes of {stored}"


@pytest.mark.parametrize(
    ("name", "search"),
    [
        ("27/a.png", "exact"),
        ("val2014/b.png", "exact"),
        ("c.png", "exact"),
        ("../outside.png", "exact"),
        ("../outside.png", "ends"),
        ("..\\outside.png", "ends"),
        ("gone.png", "anywhere"),
        ("a\0.png", "anywhere"),
        ("half \ud800.png", "exact"),
        ("half \ud800.png", "anywhere"),
    ],
)
def test_an_image_that_is_not_there_is_missing(places, name, search):
    with pytest.raises(MemberError) as caught:
        read(places, search, name)
    assert caught.value.reason == "missing_file"


def test_an_absolute_path_is_read_only_anywhere(places, tmp_path):
    name = str(tmp_path / "outside.png")
    assert read(places, "anywhere", name) == b"bytes of outside.png"
    with pytest.raises(MemberError):
        read(places, "exact", name)


def test_a_name_that_stands_in_two_archives_is_damaged(tmp_path):
    archives = [zipped(tmp_path / f"{i}.zip", "a.png", f"{i}.png") for i in range(2)]
    with pytest.raises(MemberError, match="stands 2 times"):
        read(archives, "exact", "a.png")


def test_a_file_that_is_no_archive_is_refused_by_its_name(tmp_path):
    (tmp_path / "no.zip").write_text("no zip")
    with pytest.raises(zipfile.BadZipFile, match=r"no\.zip"):
        ImageMembers([tmp_path / "no.zip"], "exact")


NAMES = ("train/n01440764/n01440764_18.JPEG", "train/n01440764/n01440764_2.JPEG",
         "train/n01443537/n01443537_7.JPEG", "train/loose.JPEG")  # fmt: skip


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_the_class_is_the_first_folder_and_a_loose_file_has_none(tmp_path, kind):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    place = tmp_path / "train" if kind == "folder" else zipped(tmp_path / "t.zip", *NAMES)
    found = list(read_class_folder(place))
    assert [(e.images[0], *e.labels) for e in found] == [
        ("loose.JPEG",),
        ("n01440764/n01440764_18.JPEG", "n01440764"),
        ("n01440764/n01440764_2.JPEG", "n01440764"),
        ("n01443537/n01443537_7.JPEG", "n01443537"),
    ]
    assert not any(e.reason for e in found)


def test_names_without_the_flag_of_utf_8_are_listed_once(tmp_path):
    name = "ärger/鹿.png"
    plain = "x" * len(name.encode())  # zipfile sets the flag for any name that is not ASCII
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(plain, "an image")
        archive.writestr("b/c.png", "an image")
    path.write_bytes(path.read_bytes().replace(plain.encode(), name.encode()))
    assert class_member_names(path) == ["b/c.png", name]
    assert [e.labels for e in read_class_folder(path)] == [("b",), ("ärger",)]
    assert read([path], "exact", name) == b"an image"


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(ListError, match="no files"):
        list(read_class_folder(tmp_path))
    with pytest.raises(ListError, match="no files"):
        list(read_class_folder(zipped(tmp_path / "empty.zip")))


def test_the_one_folder_of_an_archive_is_a_class(tmp_path):
    """A part of an evaluation set may hold a single class."""
    path = zipped(tmp_path / "a.zip", "val/cat/1.jpg", "val/cat/2.jpg")
    assert [(e.images[0], e.labels) for e in read_class_folder(path)] == [
        ("cat/1.jpg", ("cat",)), ("cat/2.jpg", ("cat",)),
    ]  # fmt: skip
    flat = zipped(tmp_path / "b.zip", "1.jpg")
    assert [e.labels for e in read_class_folder(flat)] == [()]


def test_a_label_is_the_same_class_in_either_form_of_unicode(tmp_path):
    """macOS decomposes names of files: caf, e, an accent."""
    names = ["caf\u00e9/1.jpg", "cafe\u0301/2.jpg"]
    found = list(read_class_folder(zipped(tmp_path / "a.zip", *names)))
    assert {e.labels for e in found} == {("caf\u00e9",)}
    assert sorted(e.images[0] for e in found) == sorted(names)


@pytest.mark.parametrize(
    "name",
    ["in/a.jpg", "./in/a.jpg", "/in/a.jpg", "in\\a.jpg", "top/x/../in/a.jpg", "top//in/a.jpg"],
)
def test_an_own_list_may_write_the_path_of_a_member_in_other_ways(tmp_path, name):
    place = zipped(tmp_path / "a.zip", "top/in/a.jpg", "top/b.jpg")
    assert read([place], "anywhere", name)
