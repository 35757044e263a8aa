# Where processes wait: what is said of a test that waited in vain. Ends nothing, changes nothing.

# The calls of each thread on one line, the innermost first, without those of the libraries.
threads_of() { # PID
	timeout 60 gdb -p "$1" -batch -ex 'thread apply all bt 30' 2>/dev/null | awk '
		function say() { if (calls != "") print "  " calls; calls = "" }
		/^Thread / { say() }
		/^#0/ { calls = $4 ~ /^\(/ ? $3 : $2 }
		/^#.* at (sandboxfs|ctl|contrib)\// {
			sub(/^#[0-9]+ +(0x[0-9a-f]+ in )?/, "")
			calls = calls " < " $1 " " $NF
		}
		END { say() }'
}

# where_they_wait PID...: a line for each, and the threads of those that are sandboxfs.
where_they_wait() {
	local pid
	for pid; do
		ps -o pid=,ppid=,stat=,wchan:24=,args= -p "$pid" | cut -c1-200
	done
	for pid; do
		[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = sandboxfs ] || continue
		echo "threads of sandboxfs $pid:"
		if command -v gdb >/dev/null; then
			threads_of "$pid"
		else
			grep -H . "/proc/$pid"/task/*/wchan | sed 's/^/  /'
		fi
	done
}
