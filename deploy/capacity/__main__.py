"""`python -m deploy.capacity`: write the autoscalers' targets for a kind of GPU."""

import argparse
import math
import sys
from pathlib import Path

from deploy.capacity.profile import GPUS, STATELESS, TRACKER, Profile, load
from deploy.capacity.targets import (
    Share,
    orchestrator_share,
    replicas,
    stateless_share,
    tracker_share,
)
from orchestrator.errors import CapacityError

TARGETS = Path(__file__).parents[1] / "kubernetes" / "components" / "targets" / "targets.env"


def render(profile: Profile) -> str:
    """Return the content of `targets.env`."""
    scaled = [(name, stateless_share(profile, name), "requests in flight") for name in STATELESS]
    scaled.append((TRACKER, tracker_share(profile), "streams"))
    scaled.append(("orchestrator", orchestrator_share(profile), "streams"))
    workload, factor = profile.table["workload"], profile.table["autoscaling"]["max_factor"]
    most = {name: math.ceil(count * factor) for name, count in replicas(profile).items()}
    lines = [
        f"# Written by `python -m deploy.capacity --gpu {profile.gpu}`: see its README.",
        f"# For up to {workload['streams']} streams of {workload['frame_rate']:g} frames a second.",
        f"MIN_REPLICAS={profile.table['autoscaling']['min_replicas']}",
    ]
    for name, share, unit in scaled:
        lines += _lines(name, share, unit, most[name])
    return "\n".join(lines) + "\n"


def _lines(name: str, share: Share, unit: str, most: int) -> list[str]:
    key = name.upper()
    given = "streams" if unit == "streams" else "requests a second"
    return [
        f"# {name}: given {share.load:.4g} of {share.capacity:.4g} {given}",
        f"{key}_TARGET={_rounded(share.target)}",
        f"{key}_MAX_REPLICAS={most}",
    ]


def _rounded(target: float) -> str:
    """Two digits: more would pretend to know the load so well."""
    return f"{float(f'{target:.2g}'):g}"


def main(arguments: list[str] | None = None) -> int:
    """Write the file; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.capacity", description=__doc__)
    parser.add_argument("--gpu", choices=GPUS, help="default: the one that profile.toml names")
    parser.add_argument("--observed", type=int, metavar="N", help="sam2_tracker's max_observed")
    options = parser.parse_args(arguments)
    try:
        TARGETS.write_text(render(load(options.gpu, observed=options.observed)))
    except CapacityError as error:
        sys.stderr.write(f"deploy.capacity: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
