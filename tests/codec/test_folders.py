"""What there is to do in a folder: which files, and what they become."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import folders
from codec.errors import BadInput
from tests.codec.commands import lay_out


def planned(root: Path, out: Path, **options: bool) -> dict[str, str]:
    found = folders.plan(root, out, ".mlic", folders.may_be_a_picture, **options)
    return {str(p.source.relative_to(root)): str(p.target.relative_to(out)) for p in found.pairs}


# what there is to do


def test_the_tree_is_kept_and_names_that_clash_stay_whole(tmp_path: Path) -> None:
    lay_out(tmp_path / "in", "a.png", "b/photo.jpg", "b/photo.png", "b/other.png", "b/c/photo.jpg", "LICENSE")
    assert planned(tmp_path / "in", tmp_path / "out") == {
        "a.png": "a.mlic", "b/other.png": "b/other.mlic",
        "b/photo.jpg": "b/photo.jpg.mlic", "b/photo.png": "b/photo.png.mlic", "b/c/photo.jpg": "b/c/photo.mlic",
    }  # fmt: skip


@given(st.sets(st.text("aB.", min_size=1, max_size=6).filter(lambda n: not n.startswith(".")), max_size=12))
def test_no_two_files_become_the_same(names: set[str]) -> None:
    names = {n.casefold(): n for n in names}.values()  # those that one folder can hold on any machine
    made = folders.targets(sorted(names), ".mlic")
    assert len({t.casefold() for t in made.values()}) == len(made) == len(names)
    assert all(target in (f"{name}.mlic", f"{Path(name).stem}.mlic") for name, target in made.items())


def test_a_whole_name_may_clash_in_its_turn() -> None:
    made = folders.targets(["a.jpg", "A.png", "a.jpg.tif"], ".mlic")
    assert made == {"a.jpg": "a.jpg.mlic", "A.png": "A.png.mlic", "a.jpg.tif": "a.jpg.tif.mlic"}


def test_what_is_left_out(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "in" / "x" / "out"
    lay_out(root, "a.png", ".hidden.png", ".git/b.png", "x/c.png", "x/out/old.png", "x/.out/d.png")
    lay_out(root, "note.txt", "x/a.xmp", "x/film.mp4", "x/photo.mlic", "x/data.json", "Thumbs.db", "x/all.tar.gz")
    (root / "x" / "loop").symlink_to(root)
    (root / "link.png").symlink_to(root / "a.png")
    (root / "nowhere.png").symlink_to(root / "none")
    found = folders.plan(root, out, ".mlic", folders.may_be_a_picture)
    assert [str(p.source.relative_to(root)) for p in found.pairs] == ["a.png", "link.png", "x/c.png"]
    assert (found.others, found.links) == (7, 1)
    assert found.unseen == [f"{root / 'nowhere.png'}: No such file or directory"]
    assert found.pairs[0].size == len("a.png")


def test_what_is_up_to_date_is_left_alone(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    lay_out(root, "new.png", "same.png", "old.png", "none.png")
    lay_out(out, "new.mlic", "same.mlic", "old.mlic")
    for name, age in (("new", 1), ("same", 0), ("old", -1)):
        stamp = (root / f"{name}.png").stat().st_mtime_ns + age
        os.utime(out / f"{name}.mlic", ns=(stamp, stamp))
    assert set(planned(root, out)) == {"none.png", "old.png"}
    assert set(planned(root, out, force=True)) == {"new.png", "none.png", "old.png", "same.png"}


def test_a_folder_in_the_place_of_a_file_does_not_pass_for_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    (tmp_path / "out" / "a.mlic").mkdir(parents=True)
    found = folders.plan(tmp_path / "in", tmp_path / "out", ".mlic", folders.may_be_a_picture)
    assert found.fresh == 0 and len(found.pairs) == 1


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    lay_out(tmp_path, "in/a.png", "file")
    for source, out, message in (("none", "out", "not there"), ("file", "out", "not a folder"),
                                 ("in", "file", "is a file"), ("in", "in/../in", "folder of the sources")):  # fmt: skip
        with pytest.raises(BadInput, match=message):
            folders.plan(tmp_path / source, tmp_path / out, ".mlic", folders.may_be_a_picture)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    lay_out(tmp_path / "in", "shut/a.png")
    (tmp_path / "in" / "shut").chmod(0)
    assert "Permission denied" in folders.plan(tmp_path / "in", tmp_path / "out", ".mlic", bool).unseen[0]


# reading, work, writing
