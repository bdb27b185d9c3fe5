"""`python -m gantool` is `gantool`."""

from gantool.cli import main

if __name__ == "__main__":
    main()
