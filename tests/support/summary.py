"""Adds the runners' JUnit files up. usage: summary.py FOLDER RUNNER…
A runner that left no file crashed: that is one failure. The last line is `N passed, N failed, N skipped`."""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def count(path):
    """(passed, failed, skipped) of one JUnit file, and the names of what failed."""
    passed, failed, skipped, names = 0, 0, 0, []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
            names.append(f"{case.get('classname', '')}::{case.get('name', '')}")
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return (passed, failed, skipped), names


def main(folder, runners):
    total = [0, 0, 0]
    for runner in runners:
        path = pathlib.Path(folder) / f"{runner}.xml"
        try:
            counts, names = count(path)
        except (OSError, ElementTree.ParseError) as error:
            counts, names = (0, 1, 0), [f"{runner} left no result: {error}"]
        if sum(counts) == 0:
            counts, names = (0, 1, 0), [f"{runner} ran no test"]
        print(f"{runner}: {counts[0]} passed, {counts[1]} failed, {counts[2]} skipped")
        for name in names:
            print(f"  failed: {name}")
        total = [a + b for a, b in zip(total, counts)]
    print(f"{total[0]} passed, {total[1]} failed, {total[2]} skipped")
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
