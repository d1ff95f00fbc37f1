"""`python -m launch.report`."""

import sys

from launch.report import main

if __name__ == "__main__":
    sys.exit(main())
