"""The gate before publication: an engine must answer as the fp32 graph does, or it stays unborn.

Both run on the same real pictures, whatever runs them. For the detector the fp32 graph's own
detections are the truth of the AP: the drop that the engine causes is then measured where engines
are built, without labelled footage, and one lost or invented box shows, which a drop against real
truth hides whenever the model itself was wrong there.
"""

import numpy as np
from numpy.typing import NDArray

from training.errors import InputError
from training.export.agreement import Figures, Limits, Runner, violations
from training.export.families import Family
from training.export.precision import Precision


def thresholds(family: Family) -> Limits:
    """Return what the figures of an engine may be; see `training.export.agreement`.

    They are those of an fp16 graph, for engines in fp32 as well, since TensorRT computes these in
    TF32, whose mantissa is as short. The demo weights as an fp16 graph in onnxruntime are at
    matched 1.00, overlap 0.992 to 0.997, logit error 0.02 to 0.07, AP 0.993 to 0.998 (detector),
    and at top-1 1.00, cosine 1.0000, logit error 0.004 (jersey). One output channel zeroed, of the
    96 of the patch embedding or the 512 of the largest convolution, is refused.
    """
    return family.limits[Precision.FP16]


class GateError(InputError):
    """An engine answers otherwise than the fp32 graph; names the figures and their thresholds."""


def pass_gate(
    reference: Runner, candidate: Runner, family: Family, rows: NDArray[np.uint8]
) -> Figures:
    """Compare a candidate with its fp32 reference and return the figures.

    Args:
        reference: The fp32 graph.
        candidate: The engine, or whatever stands for it.
        family: What both are.
        rows: Real inputs, uint8 `(n, height, width, 3)`.

    Raises:
        GateError: A figure is beyond its threshold.
        InputError: The reference finds nothing in the pictures, so nothing can be judged.
    """
    figures = family.compare(reference(rows), candidate(rows))
    broken = violations(figures, thresholds(family))
    if broken:
        raise GateError(
            f"{family.contract.name}: the engine is refused, it differs too much from the fp32 "
            f"graph: {'; '.join(broken)}"
        )
    return figures
