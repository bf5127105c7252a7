"""`python -m reprise COMMAND`: demo, simulate, largest-batch."""

import importlib
import sys

COMMANDS = {"demo": "demo", "simulate": "simulate", "largest-batch": "batch"}   # command -> module with main(arguments)


def main(arguments):
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: python -m reprise {' | '.join(COMMANDS)} [--help]")
        return 0
    if arguments[0] not in COMMANDS:
        print(f"reprise: no command '{arguments[0]}'; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return importlib.import_module(f"reprise.{COMMANDS[arguments[0]]}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
