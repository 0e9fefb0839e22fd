#!/usr/bin/env python3
"""Compares what `tidegate consume -o jsonl` printed with the oracle, each late flight exactly once.

usage: verify.py CONSUMED.jsonl flights.csv [--week]
       verify.py CONSUMED.jsonl --expect COUNT DIGEST

The second form needs no CSV: COUNT and DIGEST are what oracle.py prints. Several consumers' outputs
are compared together when their files are concatenated ("-" reads standard input).
"""
import base64
import hashlib
import json
import sys
from collections import Counter

from oracle import late_flights


def row(line):
    message = json.loads(line)
    if "body_base64" in message:
        body = json.loads(base64.b64decode(message["body_base64"]))
    else:
        body = message["body"]
        if isinstance(body, str):
            body = json.loads(body)
    return ",".join("NA" if value is None else str(value) for value in body.values())


def main():
    name, rest = sys.argv[1], sys.argv[2:]
    source = sys.stdin if name == "-" else open(name)
    found = sorted(row(line) for line in source if line.strip())
    digest = hashlib.sha256("\n".join(found).encode()).hexdigest()
    if rest[0] == "--expect":
        same = [str(len(found)), digest] == rest[1:3]
        details = "" if same else f"; expected {rest[1]} {rest[2]}"
    else:
        have, want = Counter(found), Counter(late_flights(rest[0], "--week" in rest))
        missing, surplus = want - have, have - want
        same = not missing and not surplus
        details = f"; {missing.total()} missing, {surplus.total()} too many"
        for label, rows in (("missing", missing), ("too many", surplus)):
            for line in list(rows)[:3]:
                details += f"\n  {label}: {line}"
    print(f"{len(found)} {digest}: {'equal to the oracle' if same else 'DIFFERENT'}{details}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
