/* links: sandboxfs/caller.c */
/* Who asked and has given up: the signals that wait for a thread, as /proc shows them. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "caller.h"

#define BIT(signal) (1ULL << ((signal)-1))

/* A status of so many groups. */
static bool gives_up(unsigned groups, uint64_t thread, uint64_t process, uint64_t blocked,
	uint64_t caught, bool patient)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);
	assert_non_null(f);
	fprintf(f, "Name:\tSigPnd:\nPid:\t77\nGroups:\t");
	for (unsigned i = 0; i < groups; i++)
		fprintf(f, "%u ", 1000000 + i);
	fprintf(f, "\nNStgid:\t77\nThreads:\t1\nSigQ:\t0/100\nSigPnd:\t%016llx\nShdPnd:\t%016llx\n",
		(unsigned long long)thread, (unsigned long long)process);
	fprintf(f, "SigBlk:\t%016llx\nSigIgn:\t0000000000000000\nSigCgt:\t%016llx\nCapInh:\t0\n",
		(unsigned long long)blocked, (unsigned long long)caught);
	assert_int_equal(fclose(f), 0);
	f = fmemopen(text, size, "r");
	assert_non_null(f);
	bool so = caller_status_gives_up(f, patient);
	fclose(f);
	free(text);
	return so;
}

static void signals_that_mean_stop_are_told_from_others(void **state)
{
	(void)state;
	assert_false(gives_up(3, 0, 0, 0, 0, false));
	assert_true(gives_up(3, BIT(SIGINT), 0, 0, 0, false));
	assert_true(gives_up(3, 0, BIT(SIGTERM), 0, 0, false));
	assert_true(gives_up(3, 0, BIT(SIGKILL), 0, 0, true));
	assert_false(gives_up(3, BIT(SIGWINCH), BIT(SIGCHLD), 0, 0, false));
	assert_false(gives_up(3, BIT(SIGINT), 0, BIT(SIGINT), 0, false));
	assert_true(gives_up(3, 0, BIT(SIGALRM), 0, BIT(SIGALRM), false));
	assert_false(gives_up(3, 0, BIT(SIGALRM), 0, BIT(SIGALRM), true));
	assert_true(gives_up(3, 0, BIT(SIGALRM), 0, 0, true));
}

static void as_many_groups_as_there_may_be_hide_no_signal(void **state)
{
	(void)state;
	for (unsigned groups = 0; groups <= 65536; groups = groups ? groups * 4 : 4) {
		assert_true(gives_up(groups, 0, BIT(SIGINT), 0, 0, false));
		assert_false(gives_up(groups, 0, BIT(SIGWINCH), 0, 0, false));
	}
}

static void who_is_gone_has_given_up(void **state)
{
	(void)state;
	pid_t child = fork();
	if (!child)
		_exit(0);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_true(caller_gives_up(child, false));
	assert_true(caller_gives_up(0, false));
	assert_false(caller_gives_up(gettid(), false));
}

static void out_of_descriptors_nobody_has_given_up(void **state)
{
	struct rlimit was, none;
	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	none = was;
	none.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	bool so = caller_gives_up(gettid(), false);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	assert_false(so);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signals_that_mean_stop_are_told_from_others),
		cmocka_unit_test(as_many_groups_as_there_may_be_hide_no_signal),
		cmocka_unit_test(who_is_gone_has_given_up),
		cmocka_unit_test(out_of_descriptors_nobody_has_given_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
