"""`python -m tests.fuzz --output out/fuzz.json`: the API and the decoders under hostile input.

Takes some ten minutes; fails if anything crashed, hung, leaked or stayed without its answer.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

import uvloop

from tests.fuzz import api, decoders


def main() -> int:
    """Fuzz both, write the report, and return 1 if anything was not as promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="to the API")
    parser.add_argument("--media", type=int, default=20_000, help="to the decoder of each encoding")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    media = decoders.run(options.media, options.seed)  # first: it counts the processes that it left
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        calls = runner.run(api.fuzz(options.inputs, options.seed))
    text = json.dumps({"api": calls, "decoders": media}, indent=2)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 0 if not calls["violations"] and decoders.is_sound(media) else 1


if __name__ == "__main__":
    sys.exit(main())
