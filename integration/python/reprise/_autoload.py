"""Entry point of group torch.backends: called at the end of `import torch`. It must never raise, or `import torch` dies."""

import os
import sys


def wanted():
    """REPRISE=0 switches everything off; a budget alone is enough to switch it on. The preload shim asks the same."""
    return (os.environ.get("REPRISE") or ("1" if os.environ.get("REPRISE_BUDGET") else "0")) != "0"


def load():
    if not wanted():
        return
    try:
        from reprise import _core

        _core.install()
        budget = os.environ.get("REPRISE_BUDGET", "")
        if budget:
            _core.auto_checkpoint([], budget, os.environ.get("REPRISE_POLICY", "auto"), [], os.environ.get("REPRISE_VERIFY") == "1", os.environ.get("REPRISE_AGREE") != "0")
        _write_report_at_exit()
    except BaseException as error:
        print(f"reprise: not loaded, training goes on without it: {error}", file=sys.stderr)


def _write_report_at_exit():
    path = os.environ.get("REPRISE_REPORT", "")
    if not path:
        return
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:      # torchrun: each rank has a file of its own, report.json becomes report.rank0.json
        stem, suffix = os.path.splitext(path)
        path = f"{stem}.rank{os.environ.get('RANK', '0')}{suffix}"
    import atexit

    from reprise import _core

    def write():
        with open(path, "w", encoding="utf-8") as file:
            file.write(_core.report_json() if path.endswith(".json") else _core.report_text())

    atexit.register(write)
