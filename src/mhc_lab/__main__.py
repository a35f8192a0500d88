"""`python -m mhc_lab` is `mhc-lab`."""

import sys

from mhc_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
