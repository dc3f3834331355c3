"""ONNX files that a user names, run on one thread of the CPU."""

from pathlib import Path

import onnxruntime as ort

from training.errors import InputError


def open_onnx(path: Path) -> ort.InferenceSession:
    """Open a file for running.

    Raises:
        InputError: It is missing, or is no ONNX file that onnxruntime can run.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no other base
        raise InputError(f"{path}: expected an ONNX file: {error}") from error
