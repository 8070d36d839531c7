"""Build folders: every file is checked before anything of it is used."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from axlf_writer import UUID, write_axlf
from fake_card import fake_container
from tiny_pipeline import tiny_unet

from gen.errors import UserError
from gen.identity import unet_identity
from host.folder import BuildFolder
from host.xclbin import sha256


@pytest.fixture
def build(tmp_path):
    folder = tmp_path / "build"
    folder.mkdir()
    fake_container(folder)
    (folder / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "src").mkdir()
    (folder / "src" / "mac.cpp").write_text("// mac\n")
    write_manifest(folder)
    return folder


def write_manifest(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    manifest = {
        "format": 1,
        "files": {str(path.relative_to(folder)): sha256(path) for path in files},
        "model": {"path": "../model", "unet": unet_identity(tiny_unet())},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_intact_build(build):
    folder = BuildFolder(build)
    assert folder.model == build.parent / "model"
    folder.check_xclbin(build / "card.xclbin")
    folder.check_model(tiny_unet())


@pytest.mark.parametrize(
    "name", ["program.json", "weights.bin", "card.so", "card.xclbin", "src/mac.cpp"]
)
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damage_is_named(build, name, damage):
    path = build / name
    data = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(data[:-1])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises(UserError, match=f"{name}: .*make build"):
        BuildFolder(build)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "files": {}, "model": {}}'],
)
def test_manifests_that_are_none(build, text):
    (build / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="build"):
        BuildFolder(build)


def test_no_manifest(tmp_path):
    with pytest.raises(UserError, match="not a finished build"):
        BuildFolder(tmp_path)


def test_container_of_another_program(build, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UserError, match="another layer program"):
        BuildFolder(build).check_xclbin(fake_container(other))


def test_genuine_xclbin_needs_its_description(build, tmp_path):
    folder, path = BuildFolder(build), write_axlf(tmp_path / "engine.222.xclbin")
    note = {"sha256": sha256(path), "program": folder.program_hash, "uuid": None}
    beside = tmp_path / "engine.222.json"
    beside.write_text(json.dumps(note))
    folder.check_xclbin(path)
    beside.write_text(json.dumps({**note, "uuid": UUID}))
    folder.check_xclbin(path)
    wrongs = ({"program": "0" * 64}, {"sha256": "0" * 64}, {"uuid": UUID.replace("8", "9")})
    for wrong in (*({**note, **each} for each in wrongs), {}):
        beside.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match="another layer program"):
            folder.check_xclbin(path)
    beside.unlink()
    with pytest.raises(UserError, match="description"):
        folder.check_xclbin(path)


def test_another_model_is_refused(build):
    other = copy.deepcopy(tiny_unet())
    with torch.no_grad():
        other.conv_in.bias[0] += 1e-6
    with pytest.raises(UserError, match="another model"):
        BuildFolder(build).check_model(other)


def test_identity_is_that_of_the_numbers():
    unet = tiny_unet()
    first = unet_identity(unet)
    assert unet_identity(copy.deepcopy(unet).to(memory_format=torch.channels_last)) == first
    other = copy.deepcopy(unet)
    other.register_to_config(_name_or_path="elsewhere")
    assert unet_identity(other) == first
    other.register_to_config(norm_eps=1e-6)
    assert unet_identity(other) != first
