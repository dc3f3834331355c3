"""Stand-ins that answer from recorded truth in the time a GPU would take; see ../README.md."""
