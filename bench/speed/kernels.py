"""Times the kernels side by side with their peers: ``python bench/speed/kernels.py train`` or ``... search``.

Each subcommand lives in a module of its own and has its own options; see ``--help`` of each.
"""

import importlib
import sys

SUBCOMMANDS = {"train": "kernels_train", "search": "kernels_search"}


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in SUBCOMMANDS:
        sys.exit(f"usage: python bench/speed/kernels.py {{{','.join(SUBCOMMANDS)}}} [options]")
    return importlib.import_module(SUBCOMMANDS[sys.argv[1]]).main(sys.argv[2:])


if __name__ == "__main__":
    main()
