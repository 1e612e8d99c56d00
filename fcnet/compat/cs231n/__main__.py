"""`python -m fcnet.compat.cs231n [--year YEAR] script.py`: run a script of the course."""

from functools import partial, update_wrapper

from fcnet.compat._script import parser_of_scripts, run_script
from fcnet.compat.cs231n import _year, install

if __name__ == "__main__":
    parser = parser_of_scripts("fcnet.compat.cs231n", "CS231n")
    parser.add_argument("--year", type=int, choices=_year.YEARS, metavar="YEAR", help="of the script, if before 2018")
    options = parser.parse_args()
    run_script(parser, options, update_wrapper(partial(install, year=options.year), install))
