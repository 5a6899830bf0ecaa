"""``python -m labhub.cli`` is the command ``labhub``."""

from labhub.cli import main

main()
