"""python -m trainables.pretraining"""

from trainables.cli import run_command
from trainables.pretraining.command import main

if __name__ == "__main__":
    run_command(main)
