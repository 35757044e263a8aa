#!/bin/sh
# usage: run.sh SANDBOX
set -eu
M=$1
cat >"$M/workspace/job.sh" <<'END'
echo "working in $(pwd)"
exit 3
END
exec 3<>"$M/ctl/exec"
read -r run <&3
echo 'sh job.sh' >&3
cat <&3
code=$(cat "$M/ctl/runs/$run/exit")
case $code in
*[!0-9]* | '') echo "the end of the run is $code" >&2; exit 125 ;;
esac
exit "$code"
