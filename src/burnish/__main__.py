"""`python -m burnish`, which launchers such as torchrun start."""

from burnish.cli import main

main()
