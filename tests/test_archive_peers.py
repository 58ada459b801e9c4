"""Well-formed trees come out as from unzip, zipfile and tarfile; and as from bsdtar, where it is installed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.archives import room

from byos_run.node.stop import Stop

NAME = st.text("abcXYZ019 ._-+%#äß漢", min_size=1, max_size=12).filter(
    lambda name: name.strip(". ") and not name.startswith("-")
)
PATH = st.lists(NAME, min_size=1, max_size=4).map("/".join)
CONTENT = st.one_of(st.binary(max_size=300), st.binary(min_size=1, max_size=40).map(lambda part: part * 3000))
STOP = Stop()
PROGRAMS = {"LC_ALL": "C.UTF-8", "PATH": os.defpath}


@st.composite
def trees(draw):
    """{path: content}, no path below another."""
    tree = {}
    for path, content in draw(st.dictionaries(PATH, CONTENT, max_size=8)).items():
        if not any(path.startswith(other + "/") or other.startswith(path + "/") for other in tree):
            tree[path] = content
    return tree


def _as_bsdtar(below, name):
    """Whether bsdtar makes the same of an archive as we did."""
    if not shutil.which("bsdtar", path=PROGRAMS["PATH"]):
        return True
    os.mkdir(f"{below}/bsdtar")
    subprocess.run(["bsdtar", "-xf", f"{below}/{name}", "-C", f"{below}/bsdtar"], check=True, env=PROGRAMS)
    return room.tree(f"{below}/bsdtar") == room.tree(f"{below}/ours")


def _files(stage):
    return {os.fsdecode(path): content for path, content in room.tree(stage).items() if content != "/"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees(), st.sampled_from([0, 8]), st.booleans())
def test_as_unzip_and_zipfile(tree, method, pipe):
    """The same files with the same content, whether sizes stand before or after the data."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for path, content in tree.items():
            with made.open(zipfile.ZipInfo(path) if not pipe else path, "w", force_zip64=pipe) as member:
                member.write(content)
    below = tempfile.mkdtemp()
    try:
        with open(f"{below}/x.zip", "wb") as file:
            file.write(out.getvalue())
        room.unpack(room.FileSource(out.getvalue()), f"{below}/ours", stop=STOP)
        assert tree == _files(f"{below}/ours")
        with zipfile.ZipFile(f"{below}/x.zip") as made:
            made.extractall(f"{below}/zipfile")
        os.makedirs(f"{below}/zipfile", exist_ok=True)
        assert room.tree(f"{below}/zipfile") == room.tree(f"{below}/ours")
        if tree:
            subprocess.run(
                ["unzip", "-q", f"{below}/x.zip", "-d", f"{below}/unzip"],
                check=True,
                env=PROGRAMS,
            )
            assert room.tree(f"{below}/unzip") == room.tree(f"{below}/ours")
            assert _as_bsdtar(below, "x.zip")
    finally:
        shutil.rmtree(below)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees(), st.sampled_from(["", "gz", "bz2", "xz"]), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_as_tarfile(tree, codec, layout):
    """The same files with the same content, under every codec and in both formats."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:" + codec, format=layout) as made:
        for path, content in tree.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    below = tempfile.mkdtemp()
    try:
        name = "case.tar." + codec if codec else "case.tar"
        room.unpack(room.FileSource(out.getvalue(), name=name), f"{below}/ours", stop=STOP)
        assert tree == _files(f"{below}/ours")
        with open(f"{below}/{name}", "wb") as file:
            file.write(out.getvalue())
        assert _as_bsdtar(below, name)
    finally:
        shutil.rmtree(below)
