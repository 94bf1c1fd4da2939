"""`python -m wise_creds` is `wise-creds`."""

import sys

from wise_creds.cli import main

if __name__ == "__main__":
    sys.exit(main())
