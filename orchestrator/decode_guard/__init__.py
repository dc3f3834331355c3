"""Decoding of strangers' bytes where it can do no harm: one confined process per stream.

`GuardedSource` asks the `Nursery` for a worker and hands it frame by frame over a `wire`; pictures
come back in a `PictureRing`, shared memory that only the worker writes.
"""
