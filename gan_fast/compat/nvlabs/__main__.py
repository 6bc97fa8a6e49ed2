"""python -m gan_fast.compat.nvlabs SCRIPT [arguments of the script]"""

import sys

from gan_fast.compat import nvlabs
from gan_fast.compat._run import main

sys.exit(main("gan_fast.compat.nvlabs", nvlabs.install, sys.argv[1:]))
