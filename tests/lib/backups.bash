# For tests of backups, beside harness.bash.

# backup LINE: its id
backup() {
	local f id
	exec {f}<>"$C/backups/new"
	printf '%s\n' "$1" >&"$f" || { exec {f}>&-; return 1; }
	read -r id <&"$f"
	exec {f}>&-
	echo "$id"
}
kept() { find "$T/data" -path '*/.backups/*' -type f; }
