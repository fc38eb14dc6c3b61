"""What an HDF5 file takes from elsewhere: its own folder and those below it, and folders that the user names."""

import h5py
import numpy as np
import pytest
from scan_files import FRAMES, TRANSLATION, opened, refusal, write_cxi

from ptychoflow.acquisition.readers.outside import refuse_outside_links
from ptychoflow.acquisition.readers.survey import survey
from ptychoflow.streaming.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """A folder with a scan; what lies beside it is outside."""
    (tmp_path / "own").mkdir()
    write_cxi(tmp_path / "own" / "scan.cxi")
    return tmp_path / "own"


def moved(folder, name, target):
    """Move a dataset of the scan into another file; return its shape and type."""
    target.parent.mkdir(exist_ok=True)
    with h5py.File(folder / "scan.cxi", "a") as file, h5py.File(target, "a") as other:
        other["data"] = file[name][()]
        shape, dtype = file[name].shape, file[name].dtype
        del file[name]
    return shape, dtype


def link(folder, name, target):
    moved(folder, name, target)
    with h5py.File(folder / "scan.cxi", "a") as file:
        file[name] = h5py.ExternalLink(str(target), "/data")


def link_of_a_link(folder, name, target):
    """A link to a file in the folder, in which a link to another one stands."""
    moved(folder, name, target)
    with h5py.File(folder / "beside.h5", "w") as beside, h5py.File(folder / "scan.cxi", "a") as file:
        beside["away"] = h5py.ExternalLink(f"../{target.relative_to(folder.parent)}", "/data")
        beside["here"] = h5py.SoftLink("/away")
        file[name] = h5py.ExternalLink("beside.h5", "/here")


def symbolic_link(folder, name, target):
    moved(folder, name, target)
    (folder / "inside.h5").symlink_to(target)
    with h5py.File(folder / "scan.cxi", "a") as file:
        file[name] = h5py.ExternalLink("inside.h5", "/data")


def virtual(folder, name, target):
    shape, dtype = moved(folder, name, target)
    layout = h5py.VirtualLayout(shape, dtype)
    layout[...] = h5py.VirtualSource(str(target), "data", shape)
    with h5py.File(folder / "scan.cxi", "a") as file:
        file.create_virtual_dataset(name, layout)


def virtual_of_a_link(folder, name, target):
    shape, dtype = moved(folder, name, target)
    layout = h5py.VirtualLayout(shape, dtype)
    layout[...] = h5py.VirtualSource("beside.h5", "data", shape)
    with h5py.File(folder / "beside.h5", "w") as beside, h5py.File(folder / "scan.cxi", "a") as file:
        beside["data"] = h5py.ExternalLink(str(target), "/data")
        file.create_virtual_dataset(name, layout)


def numbered(folder, name, target):
    """A virtual dataset of numbered files, the second of which is a symbolic link."""
    shape, dtype = moved(folder, name, target)
    (folder / "part_1.h5").symlink_to(target)
    unlimited = h5py.h5s.UNLIMITED
    blocks, source = h5py.h5s.create_simple(shape, (unlimited, *shape[1:])), h5py.h5s.create_simple(shape)
    blocks.select_hyperslab((0, 0, 0), (unlimited, 1, 1), shape, shape)
    made_of = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made_of.set_virtual(blocks, b"part_%b.h5", b"data", source)
    (folder / "part_0.h5").write_bytes(target.read_bytes())
    with h5py.File(folder / "scan.cxi", "a") as file:
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), blocks, made_of)


def raw(folder, name, target):
    shape, dtype = moved(folder, name, target)
    with h5py.File(target) as other:
        values = other["data"][()].tobytes()
    target.write_bytes(values)
    with h5py.File(folder / "scan.cxi", "a") as file:
        file.create_dataset(name, shape, dtype, external=[(str(target), 0, len(values))])


@pytest.mark.parametrize("name", [FRAMES, TRANSLATION])
@pytest.mark.parametrize("make", [link, link_of_a_link, symbolic_link, virtual, virtual_of_a_link, raw])
def test_what_lies_outside_of_the_folder_is_refused_until_its_folder_is_named(folder, tmp_path, make, name):
    target = tmp_path / "elsewhere" / "secret.h5"
    make(folder, name, target)
    text = refusal(folder / "scan.cxi")
    told = "inside.h5" if make is symbolic_link else "secret.h5"
    assert f"{told}, {'a file that is not HDF5' if make is raw else 'which is not in'}" in text
    assert "--set 'source.links_to=[" in text
    scan = opened(folder / "scan.cxi", links_to=[tmp_path / "elsewhere"])
    assert len(scan.perspective(0)) == 30
    assert scan.perspective(0).read(0, 30).any()


def test_numbered_files_of_a_virtual_dataset_are_all_looked_at(folder, tmp_path):
    numbered(folder, FRAMES, tmp_path / "elsewhere" / "secret.h5")
    assert "part_1.h5, which is not in the file's own folder" in refusal(folder / "scan.cxi")


@pytest.mark.parametrize("make", [link, link_of_a_link, virtual, virtual_of_a_link])
@pytest.mark.parametrize("place", [".", "raw"])
def test_the_own_folder_and_those_below_it_are_read_as_ever(folder, make, place):
    """The file may be named by a relative path or through a symbolic link to it, too."""
    target = folder / place / "frames.h5"
    if make is link_of_a_link:
        moved(folder, FRAMES, target)
        with h5py.File(folder / "beside.h5", "w") as beside, h5py.File(folder / "scan.cxi", "a") as file:
            beside["here"] = h5py.ExternalLink(f"{place}/frames.h5", "/data")
            file[FRAMES] = h5py.ExternalLink("beside.h5", "/here")
    else:
        make(folder, FRAMES, target)
    assert opened(folder / "scan.cxi").perspective(0).read(0, 30).any()
    (folder.parent / "linked.cxi").symlink_to(folder / "scan.cxi")
    assert opened(folder.parent / "linked.cxi").perspective(0).read(0, 30).any()


def test_values_that_are_not_hdf5_are_refused_in_the_own_folder_too(folder):
    raw(folder, FRAMES, folder / "frames.raw")
    assert "frames.raw, a file that is not HDF5" in refusal(folder / "scan.cxi")


def test_hdf5_follows_no_more_links_than_are_looked_at(folder, tmp_path):
    """A link behind too many others leads nowhere: it need not be refused."""
    with h5py.File(tmp_path / "secret.h5", "w") as secret, h5py.File(folder / "deep.h5", "w") as file:
        secret["data"] = np.arange(3)
        file["link_0"] = h5py.ExternalLink("../secret.h5", "/data")
        for depth in range(1, 40):
            file[f"link_{depth}"] = h5py.SoftLink(f"/link_{depth - 1}")
    with h5py.File(folder / "deep.h5") as file:
        for depth in range(40):
            try:
                file[f"link_{depth}"]
            except (KeyError, RuntimeError) as error:
                assert depth > 10
                assert "too many links" in str(error)
                break
            with pytest.raises(UserError, match="not in the file's own folder"):
                refuse_outside_links(file, f"link_{depth}")


def test_the_list_of_a_file_of_unknown_layout_names_links_and_shows_none_of_their_values(tmp_path):
    (tmp_path / "own").mkdir()
    password = tmp_path / "password"
    password.write_bytes(bytes(range(65, 91)) * 10)
    with h5py.File(tmp_path / "own" / "scan.h5", "w") as file:
        file.create_dataset("det/frames", (2, 8, 8), "u1", external=[(str(password), 0, 128)])
        file.create_dataset("energy", (1,), "u1", external=[(str(password), 3, 1)])
    with h5py.File(tmp_path / "own" / "scan.h5") as file:
        found = survey(file)
    assert {candidate.path: candidate.values for candidate in found.candidates} == {
        "/det/frames": "kept outside of the file's folder",
        "/energy": "kept outside of the file's folder",
    }
    with h5py.File(tmp_path / "own" / "scan.h5", "w") as file, h5py.File(tmp_path / "other.h5", "w") as other:
        other["frames"] = np.ones((2, 8, 8))
        file["det/frames"] = h5py.ExternalLink("../other.h5", "/frames")
    with h5py.File(tmp_path / "own" / "scan.h5") as file:
        found = survey(file)
    assert not found.candidates
    assert "other.h5, which is not in the file's own folder" in found.missing[0]
