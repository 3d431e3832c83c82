"""What things cost, beside peers. Each script is a module to run: `python -m benchmarks.NAME --help`."""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command line does; before torch allocates
