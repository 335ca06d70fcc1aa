"""`python -m tridsl` is the command `tridsl`."""

from tridsl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
