"""`python -m gan_fast`, the same as `gan-fast`."""

import sys

from gan_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
