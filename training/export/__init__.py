"""What every exported ONNX file must pass, and its smaller forms."""
