"""`python -m fcnet.compat.dlfs SCRIPT`: a script of the book, with `install` ahead of it."""

from fcnet.compat import _install, dlfs

if __name__ == "__main__":  # install() imports this module too
    _install.run_script(dlfs.install)
