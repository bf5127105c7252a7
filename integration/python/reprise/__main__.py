"""`python -m reprise COMMAND`: demo."""

import sys

COMMANDS = ("demo",)


def main(arguments):
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m reprise demo [--help]")
        return 0
    if arguments[0] not in COMMANDS:
        print(f"reprise: no command '{arguments[0]}'; there is: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    from reprise import demo

    return demo.main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
