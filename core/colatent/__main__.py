"""`python -m colatent` is `colatent`."""

from __future__ import annotations

import sys

from colatent.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
