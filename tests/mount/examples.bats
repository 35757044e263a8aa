# contrib/examples: the same job in five languages, none with a library (row 19).
load ../lib/harness

does_the_job() { # COMMAND...
	run --separate-stderr within 60 "$@" "$M"
	echo "$stderr"
	[ "$output" = 'working in /workspace' ]
	[ "$status" = 3 ]
	same_there job.sh
}

@test "the job in a shell" {
	does_the_job bash "$repo/contrib/examples/run.sh"
	rm "$W/job.sh"
	does_the_job dash "$repo/contrib/examples/run.sh"
}
@test "the job in Python" { does_the_job python3 "$repo/contrib/examples/run.py"; }
@test "the job in JavaScript" { does_the_job node "$repo/contrib/examples/run.js"; }
@test "the job in Perl" { does_the_job perl "$repo/contrib/examples/run.pl"; }
@test "the job in C" {
	cc -Wall -Wextra -Werror -o "$T/job" "$repo/contrib/examples/run.c"
	does_the_job "$T/job"
}

@test "what failed is never an exit code of 0" {
	mkdir "$T/none"
	local program
	for program in "dash $repo/contrib/examples/run.sh" "python3 $repo/contrib/examples/run.py" \
		"node $repo/contrib/examples/run.js" "perl $repo/contrib/examples/run.pl"; do
		# shellcheck disable=SC2086
		run within 30 $program "$T/none"
		[ "$status" != 0 ]
	done
}
