"""`python -m fcnet.compat.dlfs script.py`: run a script of the book."""

from fcnet.compat._script import parser_of_scripts, run_script
from fcnet.compat.dlfs import install

if __name__ == "__main__":  # install() imports this module too
    parser = parser_of_scripts("fcnet.compat.dlfs", '"Deep Learning from Scratch"')
    run_script(parser, parser.parse_args(), install)
