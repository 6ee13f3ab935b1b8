"""``python -m rnx``: the client without its console script."""

import sys

from rnx.main import main

if __name__ == "__main__":
    sys.exit(main())
