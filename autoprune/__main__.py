"""`python -m autoprune` is `autoprune`."""

import sys

from autoprune.cli.parser import main

sys.exit(main())
