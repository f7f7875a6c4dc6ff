#!/bin/sh
# status.sh ENGINE SECONDS PYTHON ID: prints success, failed or running, for Snakemake, which asks about each job alone.
# A shell and not Python: with two hundred jobs every ten seconds, starting Python each time would fill a core.
# It never ends with an error, which would end Snakemake and with it the study: a poll that fails is no verdict.
verdicts=$1/verdicts
if [ -z "$(find "$verdicts" -newermt "-$2 seconds" 2>/dev/null)" ]; then
    # the last verdicts stand for as long as those of a poll that succeeded
    "$3" -m common.study.batch poll "$1" >&2 || touch "$verdicts"
fi
# Snakemake may remember the id of an earlier run: what nothing is known about is submitted again, which finds it or not
verdict=$(grep "^$4 " "$verdicts" | tail -n 1 | cut -d ' ' -f 2)
[ -n "$verdict" ] || { grep -q "^{\"id\": \"$4\",.*}\$" "$1/submitted.jsonl" 2>/dev/null && verdict=running || verdict=failed; }
echo "$verdict"
