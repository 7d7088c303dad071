"""What was read is not read again, unless file, settings or rows changed; nothing half-written
ever looks whole."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from imaging import brain, save
from normfuse.errors import CohortError
from normfuse.stored import ROWS
from normfuse.volumes import VolumePlan, read_images
from normfuse.volumes import reading as reading_module
from normfuse.volumes.one_image import Reading, read_image
from normfuse.volumes.plan import template_space
from normfuse.volumes.pool import Pool
from normfuse.volumes.reading import _in_order

PLAN = VolumePlan("brain", resolution=8)


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    made = {f"sub-{n}": save(tmp_path / f"{n}.nii.gz", brain(seed=n)) for n in (3, 1, 2, 0)}
    past = time.time() - 60  # or they might change again within the clock's tick
    for file in made.values():
        os.utime(file, (past, past))
    return made


@pytest.fixture
def was_read(monkeypatch) -> list[str]:
    """Names of the files that are really read."""
    names: list[str] = []

    def watched(path, plan):
        names.append(path.name)
        return read_image(path, plan)

    monkeypatch.setattr(reading_module, "read_image", watched)
    return names


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def read(files, cache, plan=PLAN, **more):
    return read_images(files, plan, name="t1", cache=cache, **more)


def expected(files, plan=PLAN):
    return np.stack([read_image(f, plan).values for f in files.values()])


def test_many_threads_give_what_one_gives(files, tmp_path):
    tables = [read(files, tmp_path / f"c{n}", threads=n) for n in (1, 4)]
    for table in tables:
        assert table.index.tolist() == list(files) == ["sub-3", "sub-1", "sub-2", "sub-0"]
        np.testing.assert_array_equal(table.frame(), expected(files))
    assert tables[0].columns.tolist() == list(PLAN.space.features)


def test_a_second_reading_reads_nothing(files, cache, was_read):
    first = read(files, cache).frame()
    was_read.clear()
    again = read(dict(reversed(files.items())), cache).frame()
    assert not was_read
    np.testing.assert_array_equal(again.loc[first.index], first)
    moved = {s: f.rename(f.with_name("moved-" + f.name)) for s, f in files.items()}
    np.testing.assert_array_equal(read(moved, cache).frame(), first)
    assert not was_read  # content counts, not the name


def test_only_what_changed_is_read(files, cache, was_read):
    read(files, cache)
    was_read.clear()
    save(files["sub-2"], brain(seed=9))
    more = {**files, "sub-7": save(files["sub-2"].with_name("7.nii.gz"), brain(seed=7))}
    np.testing.assert_array_equal(read(more, cache).frame(), expected(more))
    assert sorted(was_read) == ["2.nii.gz", "7.nii.gz"]


def test_a_change_within_the_tick_of_the_clock_is_seen(files, cache):
    """The same size and the same time, other content."""
    read(files, cache)
    file = save(files["sub-2"].with_suffix(".nii"), brain(seed=5))
    stamp = file.stat().st_mtime_ns
    files["sub-2"] = file
    read(files, cache)
    save(file, brain(seed=6))
    os.utime(file, ns=(stamp, stamp))
    np.testing.assert_array_equal(read(files, cache).frame(), expected(files))


def test_other_settings_read_again(files, cache, was_read):
    read(files, cache)
    for plan in (VolumePlan("brain", resolution=8, smoothing=3), VolumePlan("grey_matter", 8)):
        was_read.clear()
        np.testing.assert_array_equal(read(files, cache, plan).frame(), expected(files, plan))
        assert len(was_read) == 4
    was_read.clear()
    read(files, cache, VolumePlan("brain", resolution=8, min_coverage=0.5))
    assert not was_read


def chunks(cache: Path) -> list[Path]:
    return [p for p in cache.glob("t1-*/values/c/**/*") if p.is_file()]


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_damaged_rows_are_read_again(files, cache, was_read, harm):
    read(files, cache)
    chunk, = chunks(cache)
    was_read.clear()
    data = bytearray(chunk.read_bytes())
    if harm == "remove":
        chunk.unlink()
    else:
        data[9] ^= 1
        chunk.write_bytes(data if harm == "flip" else data[:len(data) // 2])
    np.testing.assert_array_equal(read(files, cache).frame(), expected(files))
    # the flipped bit lies in the first row of the chunk
    assert len(was_read) == (1 if harm == "flip" else 4)
    was_read.clear()
    np.testing.assert_array_equal(read(files, cache).frame(), expected(files))
    assert not was_read


@pytest.mark.parametrize("harm", ["ledger", "line", "array", "files"])
def test_damaged_records_are_made_again(files, cache, was_read, harm):
    read(files, cache)
    folder, = cache.glob("t1-*")
    was_read.clear()
    if harm == "ledger":
        (folder / "ledger.jsonl").write_bytes(b"\xff\xfe{")
    elif harm == "line":  # killed while the last line was written
        text = (folder / "ledger.jsonl").read_text()
        (folder / "ledger.jsonl").write_text(text[:-20])
    elif harm == "array":
        (folder / "values" / "zarr.json").write_text("{")
    else:
        (folder / "files.json").write_text("[")
    np.testing.assert_array_equal(read(files, cache).frame(), expected(files))
    assert len(was_read) == {"ledger": 4, "line": 1, "array": 4, "files": 0}[harm]
    was_read.clear()
    np.testing.assert_array_equal(read(files, cache).frame(), expected(files))
    assert not was_read


def test_a_stopped_reading_goes_on(files, cache, monkeypatch, was_read):
    def stops(path, plan):
        if path.name == "2.nii.gz":
            raise KeyboardInterrupt
        return read_image(path, plan)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reading_module, "read_image", stops)
        read(files, cache, threads=1)
    was_read.clear()
    np.testing.assert_array_equal(read(files, cache).frame(), expected(files))
    assert sorted(was_read) == ["0.nii.gz", "2.nii.gz"]  # 3 and 1 came first


@pytest.mark.slow
def test_a_killed_reading_goes_on(files, cache, was_read):
    """SIGKILL once the rows of a block are on disk, before the ledger says so, and after."""
    code = textwrap.dedent(f"""
        import os, signal, sys
        from pathlib import Path
        from normfuse.volumes import VolumePlan, read_images
        from normfuse.volumes.pool import Pool
        write = Pool._append
        def dies(self, lines):
            if sys.argv[1] == "after":
                write(self, lines)
            os.kill(os.getpid(), signal.SIGKILL)
        Pool._append = dies
        read_images({ {s: str(f) for s, f in list(files.items())[:3]} },
                    VolumePlan("brain", resolution=8), name="t1", cache={str(cache)!r})
    """)
    for when, count in (("before", 4), ("after", 1)):
        done = subprocess.run([sys.executable, "-c", code, when], capture_output=True)
        assert done.returncode == -9, done.stderr.decode()
        if when == "after":
            assert len(chunks(cache)) == 1
            was_read.clear()
            np.testing.assert_array_equal(read(files, cache).frame(), expected(files))
            assert len(was_read) == count


def test_more_people_than_a_chunk_holds(tmp_path):
    pool = Pool(tmp_path / "p", PLAN.space.features)
    facts = read_image(save(tmp_path / "a.nii", brain()), PLAN).facts
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2 * ROWS + 9, PLAN.space.n_voxels)).astype(np.float32)
    rows[ROWS:2 * ROWS, :] = np.nan  # a whole chunk without a value is not a lost one
    with pool.locked():
        for start in range(0, len(rows), 50):
            piece = rows[start:start + 50]
            pool.add([(f"d{n}", Reading(None, facts, ()))
                      for n in range(start, start + len(piece))], piece)
    entries = pool.entries()
    assert len(pool.sound(entries)) == len(rows)
    chosen = {s: entries[f"d{n}"] for s, n in (("x", 130), ("y", 3), ("z", 70), ("same", 3))}
    np.testing.assert_array_equal(pool.table(chosen).frame(), rows[[130, 3, 70, 3]])


def test_two_at_once_wait_for_each_other(files, cache, was_read):
    tables = []
    crowd = [threading.Thread(target=lambda: tables.append(read(files, cache)))
             for _ in range(2)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert len(was_read) == 4
    for table in tables:
        np.testing.assert_array_equal(table.frame(), expected(files))


def test_the_cache_says_what_it_is_and_where_it_cannot_be(files, cache, tmp_path):
    read(files, cache)
    assert "can be deleted" in (cache / "README.txt").read_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(CohortError, match="images cannot be kept in .*NORMFUSE_CACHE"):
        read(files, tmp_path / "file")


def test_the_default_cache_can_be_moved(files, tmp_path, monkeypatch):
    monkeypatch.setenv("NORMFUSE_CACHE", str(tmp_path / "elsewhere"))
    read_images(files, PLAN, name="a/b c")
    folder, = (tmp_path / "elsewhere" / "volumes").glob("a-b-c-*")
    assert len((folder / "ledger.jsonl").read_text().splitlines()) == 4
    assert set(json.loads((folder / "files.json").read_text())) == {
        str(f.resolve()) for f in files.values()}


def test_only_a_few_images_are_in_memory_at_once():
    alive = peak = 0
    lock = threading.Lock()

    def work(n):
        nonlocal alive, peak
        with lock:
            alive += 1
            peak = max(peak, alive)
        return n

    for n, found in enumerate(_in_order(work, range(50), 3)):
        assert found == n
        with lock:
            alive -= 1
    assert peak <= 4 + 1


def test_no_progress_bar_in_a_pipe(files, cache, capsys):
    read(files, cache)
    assert capsys.readouterr().err == ""


def test_rows_and_spaces_agree(files, cache):
    """A bright voxel comes out where it went in."""
    data = brain(seed=1)
    data[30, 20, 19] = 40
    file = save(cache.parent / "bright.nii.gz", data)
    plan = VolumePlan("brain", resolution=4, smoothing=0)
    row = read({"s": file}, cache, plan).frame().iloc[0].to_numpy()
    where = plan.space.coordinates()[row.argmax()]
    affine = np.array([5.0 * 30 - 96, 6 * 20 - 132, 5 * 19 - 70])
    assert np.abs(where - affine).max() < 3.01
    assert plan.space == template_space("brain", 4)
