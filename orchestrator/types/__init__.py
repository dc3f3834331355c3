"""The domain types that travel between the stages; frozen, without protobuf and without Triton."""
