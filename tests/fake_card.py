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
struct FakeCard { std::string error; uint64_t cycles = 0; };
extern "C" {
void* lda_card_new() { return new FakeCard; }
void lda_card_free(void* c) { delete static_cast<FakeCard*>(c); }
// weights[0] is the code to return; result = latent + dynamic[0] + weights[1]
int lda_card_step(void* p, const uint8_t* w, uint64_t nw, const uint8_t* d, uint64_t nd,
                  const uint8_t* l, uint64_t nl, uint8_t* r, uint64_t nr) {
    FakeCard* c = static_cast<FakeCard*>(p);
    c->error.clear();
    if (nw < 2 || nd < 1) { c->error = "buffer too small"; return 3; }
    c->cycles += 1000;
    if (w[0] == 1) c->error = "deadlock: mac waits to write FIFO as (fill 4 of 4) at cycle 77";
    if (w[0] == 2) c->error = "FIFO px holds 3 leftover tokens";
    if (w[0]) return w[0];
    for (uint64_t i = 0; i < nr; ++i) r[i] = uint8_t((i < nl ? l[i] : 0) + d[0] + w[1]);
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
