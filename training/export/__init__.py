"""From a trained network to checked ONNX files: fp32, fp16, fp16 storage, int8."""
