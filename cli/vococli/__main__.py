"""`python -m vococli` is `voco`."""

import sys

from vococli.main import main

sys.exit(main())
