"""python -m gan_fast.compat.rosinality SCRIPT [arguments of the script]"""

import sys

from gan_fast.compat import rosinality
from gan_fast.compat._run import main

sys.exit(main("gan_fast.compat.rosinality", rosinality.install, sys.argv[1:]))
