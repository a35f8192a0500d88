"""`python -m mhc_lab.bench ops`: what `mhc-lab bench` does, with torch and triton alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mhc_lab.bench.command import bench
from mhc_lab.bench.options import parse
from mhc_lab.errors import EXIT_OK, LabError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 2 the user's input."""
    try:
        bench(parse(arguments))
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
