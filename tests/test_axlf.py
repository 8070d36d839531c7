"""Metadata of a genuine xclbin, and of files that are damaged."""

from __future__ import annotations

import random

import pytest
from axlf_writer import PLATFORM, UUID, write_axlf

from gen.errors import UserError
from host.axlf import read_axlf
from host.xclbin import board_mems, engine_units


def test_what_the_linker_wrote_is_read(tmp_path):
    units, mems = engine_units(4), board_mems(4)
    metadata = read_axlf(write_axlf(tmp_path / "a.xclbin", units, mems, clock_mhz=187))
    assert (metadata.uuid, metadata.platform, metadata.clock_mhz) == (UUID, PLATFORM, 187.0)
    assert metadata.mems == mems
    assert sorted(metadata.units, key=lambda unit: unit.name) == sorted(
        units, key=lambda unit: unit.name
    )
    assert [unit.name for unit in metadata.units_of("store")] == [
        "store_1", "store_2", "store_3", "store_4",
    ]  # fmt: skip
    assert [unit.args[0].mems for unit in metadata.units_of("wload")] == [(0,), (1,), (2,), (3,)]
    for unit in metadata.units:
        scalars = [(index, arg.name) for index, arg in enumerate(unit.args) if arg.scalar]
        assert scalars == ([(2, "reload")] if unit.kernel == "wload" else [])
    assert [unit.kernel for unit in metadata.units if unit.name == "gather_3"] == ["gather_3"]


@pytest.mark.parametrize("keep", [0, 7, 8, 300, 455, 460, 700, 1500])
def test_truncated_files_are_one_sentence(tmp_path, keep):
    path = write_axlf(tmp_path / "a.xclbin")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"a\.xclbin: not an xclbin .*link it again"):
        read_axlf(path)


def test_damage_is_never_anything_but_one_sentence(tmp_path):
    path = write_axlf(tmp_path / "a.xclbin")
    data = path.read_bytes()
    rng = random.Random(1)
    for _ in range(1000):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(304, len(data))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_axlf(path)
        except UserError as error:
            assert "\n" not in str(error)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_axlf(tmp_path / "none.xclbin")
