"""One reader a format; each finds what it can read below a path, and reads it into clips."""
