"""Documents as the strict reader wants them: what a test changes in a body must not be told by the checksum."""

import json


def document(kind, version, body):
    text = json.dumps(body, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    checksum = 14695981039346656037
    for byte in text.encode():
        checksum = (checksum ^ byte) * 1099511628211 % 2 ** 64
    return json.dumps({"reprise": kind, "version": version, "checksum": f"{checksum:016x}", "body": body})
