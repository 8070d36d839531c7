"""Choices of the quantiser."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Everything that :func:`gen.quantise.quantise` may be asked to do differently.

    ``headroom_bits``: stream tensors, logits and the output may exceed the largest value seen
    in calibration by this many powers of two before they saturate.
    ``replicas``: copies of each input channel, limited to what fits in 16 channels.
    ``weight_bits``: 8, or 4 for weights in -7..7; the layers at both ends, which read the latent
    or write the output, have 8 bits anyway.
    ``round_weights``: choose weight roundings together, so that their errors cancel on the
    replayed calibration inputs (GPTQ); otherwise every weight is rounded to nearest. None: for
    weights of 4 bits only.
    ``joint_inputs``: how many inputs of a row are rounded together at most; the work grows with
    its square.
    ``correct_bias``: remove the mean error of every output row seen on the replayed inputs.
    ``balance``: exponent of the per-channel operand scales where the read side has them, 0 gives
    every channel the same scale, 1 gives each its own; ``gate_balance``: the same for stored
    int8 tensors that only static weights read (GEGLU's).
    ``centre``: take the middle of each channel's range out of the operands of 1x1 layers.
    ``damping``: added to the diagonal of the operands' second moments, in shares of its mean.
    """

    headroom_bits: int = 1
    replicas: int = 4
    weight_bits: int = 8
    round_weights: bool | None = None
    joint_inputs: int = 2304
    correct_bias: bool = False
    balance: float = 0.7
    gate_balance: float = 0.5
    centre: bool = True
    damping: float = 0.01

    @property
    def replays(self) -> bool:
        """Whether recorded runs are repeated in integers."""
        return self.rounds_together or self.correct_bias

    @property
    def rounds_together(self) -> bool:
        """Whether weight roundings are chosen together."""
        return self.weight_bits < 8 if self.round_weights is None else self.round_weights
