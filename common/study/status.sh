#!/bin/sh
# status.sh ENGINE SECONDS PYTHON ID: prints success, failed or running, for Snakemake, which asks about each job alone.
# A shell and not Python: with two hundred jobs every ten seconds, starting Python each time would fill a core.
verdicts=$1/verdicts
if [ -z "$(find "$verdicts" -newermt "-$2 seconds" 2>/dev/null)" ]; then
    "$3" -m common.study.batch poll "$1" >&2 || exit 1
fi
# Snakemake may remember the id of an earlier run: what nothing is known about is submitted again, which finds it or not
verdict=$(grep "^$4 " "$verdicts" | tail -n 1 | cut -d ' ' -f 2)
[ -n "$verdict" ] || { grep -q "^{\"id\": \"$4\"," "$1/submitted.jsonl" 2>/dev/null && verdict=running || verdict=failed; }
echo "$verdict"
