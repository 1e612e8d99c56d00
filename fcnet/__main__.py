"""`python -m fcnet`: the same as the command `fcnet`."""

import sys

if __name__ == "__main__":
    from fcnet.cli import main

    sys.exit(main())
