"""Checks of a finished program that share no code with the lowering.

``verify_program`` counts the elements of every stream as its producer and as its consumer counts
them, and replays all reads and writes of the store with marked cells: every value read must be the
last one written for exactly that tensor, plane, channel group and pixel.
"""

from __future__ import annotations

from gen.program.program import Program
from gen.program.replay import replay
from gen.program.streams import consumed, produced


class ProgramError(AssertionError):
    """A program that would compute something else than its graph. A defect of the generator."""


def verify_program(program: Program) -> None:
    """Check a program.

    Raises:
        ProgramError: naming the layer and what does not fit.
    """
    _check_segments(program)
    _check_prefetch(program)
    for index, entry in enumerate(program.entries):
        shapes = {entry.store.shape, entry.mac.shape, entry.post.shape}
        if len(shapes) != 1:
            raise ProgramError(f"layer {entry.layer}: the kernels disagree about its shape")
        out, into = produced(program, index), consumed(program, index)
        for stream, count in out.items():
            if count != into[stream]:
                raise ProgramError(
                    f"layer {entry.layer}: {count} elements of {stream} are sent, "
                    f"{into[stream]} are taken"
                )
        _check_limits(program, index)
        _check_buffers(program, index)
    fault = replay(program)
    if fault:
        raise ProgramError(fault)


def _check_segments(program: Program) -> None:
    expected = 0
    for segment in program.segments:
        if segment.first != expected or min(segment.count, segment.n0, segment.n1) < 1:
            raise ProgramError(f"segment at entry {segment.first}: entries are skipped or repeated")
        expected += segment.count
    if expected != len(program.entries):
        raise ProgramError(f"segments cover {expected} of {len(program.entries)} entries")


def _check_prefetch(program: Program) -> None:
    """What one entry loads ahead is what the next one leaves out, in ``mac`` and ``wload``."""
    prefetched = 0
    for index, entry in enumerate(program.entries):
        mac, wload = entry.mac, entry.wload
        if mac.load_first != int(not prefetched):
            raise ProgramError(f"layer {entry.layer}: its first weights are loaded twice or never")
        if wload.ws_words and wload.load_first != mac.load_first:
            raise ProgramError(f"layer {entry.layer}: wload and mac disagree about prefetching")
        rows = 0
        if wload.prefetch_next:
            if index + 1 == len(program.entries):
                raise ProgramError(f"layer {entry.layer}: nothing follows that could be prefetched")
            after = program.entries[index + 1]
            if program.segment_of(index) != program.segment_of(index + 1):
                raise ProgramError(f"layer {entry.layer}: prefetching across segments")
            if not after.wload.ws_words or after.mac.from_store:
                raise ProgramError(f"layer {entry.layer}: prefetches what is not in DDR")
            rows = after.wload.ws_words // 2
        if mac.next_rows != rows:
            raise ProgramError(
                f"layer {entry.layer}: mac prefetches {mac.next_rows} rows, wload {rows}"
            )
        prefetched = wload.prefetch_next


def _check_limits(program: Program, index: int) -> None:
    entry, engine = program.entries[index], program.engine
    mac = entry.mac
    slots = mac.stride * mac.stride * mac.items * mac.pitch
    limits = {
        "window rows": (-(-slots // engine.pixels) * mac.subs, engine.window_rows),
        "weight rows": (mac.shape.steps * mac.shape.gates, engine.weight_rows),
        "taps": (mac.taps, len(mac.offset)),
        "elements of FIFO ks": (entry.store.weights.words, engine.depths["ks"]),
        "elements of FIFO ss": (
            min(mac.shape.fill, mac.shape.lead + 2 * engine.pixels) if entry.pre.row_sums else 0,
            engine.depths["ss"],
        ),
        "row sums": (mac.shape.fill if entry.pre.row_sums else 0, engine.sums),
    }
    for what, (need, have) in limits.items():
        if need > have:
            raise ProgramError(f"layer {entry.layer}: {need} {what} of {have}")
    first_tile = max(0, *(offset for offset in mac.offset[: mac.taps]), 0) + engine.pixels
    if mac.shape.lead < min(mac.shape.fill, first_tile):
        raise ProgramError(f"layer {entry.layer}: the first tile reads pixels not filled yet")


def _check_buffers(program: Program, index: int) -> None:
    """Every DDR word that ``wload`` reads lies inside its buffer."""
    entry = program.entries[index]
    w = entry.wload
    segment = program.segment_of(index)
    sizes = (program.static_words, program.dynamic_words)
    rows = w.groups * w.gates
    reads = (
        ("ws", w.ws_buffer, w.ws, w.groups * w.ws_words),
        ("pp", w.pp_buffer, w.pp, w.pp_words),
        ("table", 0, w.table, w.table_words),
        ("scale", 0, w.scale, rows),
        ("bias", w.bias_buffer, w.bias, rows * w.bias_words),
    )
    for what, buffer, address, words in reads:
        low = min(address.at(i, j) for i in (0, segment.n0 - 1) for j in (0, segment.n1 - 1))
        high = max(address.at(i, j) for i in (0, segment.n0 - 1) for j in (0, segment.n1 - 1))
        if low < 0 or high + words > sizes[buffer]:
            raise ProgramError(
                f"layer {entry.layer}: {what} words {low}..{high + words} lie outside "
                f"buffer {buffer} of {sizes[buffer]} words"
            )
