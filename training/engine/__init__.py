"""From an ONNX graph to a TensorRT engine that is published only when it answers as the graph."""
