"""A stand-in for ``card.so``: the same C interface over a few lines of arithmetic."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

from host.xclbin import Mem, Unit, write_container

SOURCE = r"""
#include <cstdint>
#include <string>
struct Buffers {
    const uint8_t* weights; uint64_t weights_bytes;
    const uint8_t* dynamic; uint64_t dynamic_bytes;
    const uint8_t* latent; uint64_t latent_bytes;
    uint8_t* result; uint64_t result_bytes;
    uint8_t* spill; uint64_t spill_bytes;
};
// kept: weights[1] of every rank at the last reload
struct FakeCard { std::string error; uint64_t cycles = 0; uint8_t kept[4] = {}; };
extern "C" {
void* lda_card_new() { return new FakeCard; }
void lda_card_free(void* c) { delete static_cast<FakeCard*>(c); }
// weights[0] of any rank is the code to return; result = latent + dynamic[0] + kept
int lda_card_step(void* p, const Buffers* ranks, int count, int reload, int) {
    FakeCard* c = static_cast<FakeCard*>(p);
    c->error.clear();
    c->cycles += 1000;
    for (int r = 0; r < count; ++r) {
        const Buffers& b = ranks[r];
        if (b.weights_bytes < 2 || b.dynamic_bytes < 1) { c->error = "buffer too small"; return 3; }
        const uint8_t code = b.weights[0];
        if (code == 1) c->error = "deadlock: mac_1 waits to write FIFO as_1 (4/4) at cycle 77";
        if (code == 2) c->error = "FIFO px_1 holds 3 leftover tokens";
        if (code) return code;
        if (reload) c->kept[r] = b.weights[1];
        for (uint64_t i = 0; i < b.result_bytes; ++i) {
            const uint8_t latent = i < b.latent_bytes ? b.latent[i] : 0;
            b.result[i] = uint8_t(latent + b.dynamic[0] + c->kept[r]);
        }
    }
    return 0;
}
const char* lda_card_error(void* p) { return static_cast<FakeCard*>(p)->error.c_str(); }
uint64_t lda_card_cycles(void* p) { return static_cast<FakeCard*>(p)->cycles; }
const char* lda_card_report(void*) { return "fake"; }
}
"""


def compile_fake() -> Path:
    """``card.so`` of the fake, compiled once per source text."""
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"lda-fake-card-{digest}"
    library = folder / "card.so"
    if not library.exists():
        folder.mkdir(exist_ok=True)
        (folder / "card.cpp").write_text(SOURCE)
        scratch = folder / "card.so.tmp"
        subprocess.run(
            ["g++", "-shared", "-fPIC", "-O1", "-o", str(scratch), str(folder / "card.cpp")],
            check=True,
        )
        scratch.replace(library)
    return library


def fake_container(
    folder: Path,
    units: tuple[Unit, ...] | None = None,
    mems: tuple[Mem, ...] | None = None,
) -> Path:
    """A container in ``folder`` around the fake library."""
    (folder / "program.json").write_text(f'{{"folder": "{folder}"}}')
    (folder / "card.so").write_bytes(compile_fake().read_bytes())
    return write_container(folder, units=units, mems=mems)
