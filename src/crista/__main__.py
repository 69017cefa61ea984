"""``python -m crista``, the same as the command ``crista``."""

import sys

from crista.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
