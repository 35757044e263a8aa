/* links: contrib/common/buf.c sandboxfs/call.c sandboxfs/carry.c sandboxfs/shown.c */
/* Where what is brought into a sandbox comes from: files beside the program, which may not be there, or not be read just now. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "carry.h"
#include "cleanup.h"

static char dir[64], helper[96]; /* this program's own, made by main */

static int run(
	void *arg, struct call *c, int64_t deadline, const char *script, struct buf *out, int *status)
{
	(void)arg, (void)c, (void)deadline;
	if (strstr(script, "uname -m"))
		buf_str(out, "x86_64\n");
	*status = 0;
	return buf_error(out);
}

static int put(void *arg, struct call *c, int64_t deadline, const void *p, size_t size, char **path)
{
	(void)arg, (void)c, (void)deadline, (void)p, (void)size;
	*path = strdup("/tmp/put");
	return *path ? 0 : -ENOMEM;
}

/* What comes of it, and what is said: new. */
static int carry(struct programs *programs, char **said)
{
	struct carrier k = {run, put, NULL, programs};
	AUTO_FREE char *attach = NULL;
	struct call c;
	call_init(&c, 0);
	int err = carry_in(&k, &c, call_now_ms() + 10000, &attach);
	assert_int_equal(!err, attach != NULL);
	*said = strdup(c.fault.message ? c.fault.message : "");
	call_destroy(&c);
	return err;
}

static void write_helper(void)
{
	AUTO_FREE char *name = NULL;
	assert_int_equal(mkdir(helper, 0700), 0);
	assert_true(asprintf(&name, "%s/sandboxd-x86_64.gz", helper) > 0);
	gzFile z = gzopen(name, "we");
	assert_non_null(z);
	assert_int_equal(gzputs(z, "a program"), 9);
	assert_int_equal(gzclose(z), Z_OK);
}

static void remove_helper(void)
{
	AUTO_FREE char *name = NULL;
	assert_true(asprintf(&name, "%s/sandboxd-x86_64.gz", helper) > 0);
	assert_int_equal(unlink(name), 0);
	assert_int_equal(rmdir(helper), 0);
}

static int without_descriptors(struct programs *programs, char **said)
{
	struct rlimit was, none;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	none = was;
	none.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	int err = carry(programs, said);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	return err;
}

static void what_could_not_be_read_is_read_the_next_time(void **state)
{
	struct programs *programs;
	AUTO_FREE char *first = NULL;
	AUTO_FREE char *second = NULL;
	(void)state;
	write_helper();
	assert_int_equal(programs_new(&programs), 0);
	assert_int_equal(without_descriptors(programs, &first), -EMFILE);
	assert_null(strstr(first, "installed without"));
	assert_non_null(strstr(first, strerror(EMFILE)));
	assert_int_equal(carry(programs, &second), 0);
	programs_free(programs);
	remove_helper();
}

static void what_was_read_is_not_read_again(void **state)
{
	struct programs *programs;
	AUTO_FREE char *said = NULL;
	(void)state;
	write_helper();
	assert_int_equal(programs_new(&programs), 0);
	assert_int_equal(carry(programs, &said), 0);
	remove_helper();
	free(said);
	assert_int_equal(without_descriptors(programs, &said), 0);
	programs_free(programs);
}

static void what_is_not_installed_is_said(void **state)
{
	struct programs *programs;
	AUTO_FREE char *said = NULL;
	(void)state;
	assert_int_equal(programs_new(&programs), 0);
	assert_int_equal(carry(programs, &said), -ENOTSUP);
	assert_non_null(strstr(said, "installed without helper/sandboxd-x86_64.gz"));
	programs_free(programs);
}

/* Goes on as a copy of itself in a directory of its own. */
static int move_away(char *self)
{
	char place[] = "/tmp/carry.XXXXXX";
	AUTO_FREE char *copy = NULL, *command = NULL;
	if (!mkdtemp(place) || asprintf(&copy, "%s/test", place) < 0 ||
		asprintf(&command, "cp /proc/%d/exe %s", (int)getpid(), copy) < 0 || system(command) != 0)
		return 1;
	free(command);
	execl(copy, self, place, NULL);
	return 1;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_could_not_be_read_is_read_the_next_time),
		cmocka_unit_test(what_was_read_is_not_read_again),
		cmocka_unit_test(what_is_not_installed_is_said),
	};
	if (argc < 2)
		return move_away(argv[0]);
	snprintf(dir, sizeof dir, "%s", argv[1]);
	snprintf(helper, sizeof helper, "%s/helper", dir);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	AUTO_FREE char *copy = NULL;
	if (asprintf(&copy, "%s/test", dir) < 0 || unlink(copy) || rmdir(dir))
		return 1;
	return failed;
}
