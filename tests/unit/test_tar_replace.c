/* links: contrib/sandboxd/tar_look.c contrib/sandboxd/tar_chain.c contrib/common/tree_remove.c contrib/sandboxd/text.c contrib/common/buf.c */
/*
 * A directory gets other content, all or nothing: each of the moves is made to fail once, and then what was there is there as it was. The
 * unpacking is a stand-in; the real one is tested through sandboxd.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int calls, fail_at, fail_with;

static int failing_renameat(int from, const char *a, int to, const char *b)
{
	if (++calls == fail_at) {
		errno = fail_with;
		return -1;
	}
	return renameat(from, a, to, b);
}

#define renameat failing_renameat
#include "../../contrib/sandboxd/tar_replace.c"
#undef renameat

static void run(const char *dir, const char *script)
{
	AUTO_BUF line = BUF_INIT;
	buf_printf(&line, "cd %s && %s", dir, script);
	assert_int_equal(buf_error(&line), 0);
	assert_int_equal(system(line.data), 0);
}

static const char new_tree[] =
	"mkdir -p n/e both && echo 1 >n/f && echo 2 >n/e/g && echo 3 >same && echo 4 >both/x && "
	"chmod 555 n/e n";
static const char old_tree[] =
	"mkdir -p old/e/e both shut && echo 5 >old/f && echo 6 >old/e/g && echo 7 >same && echo 8 "
	">both/y && "
	"echo 9 >shut/z && chmod 555 old/e old && chmod 0 shut && touch -d 2001-02-03 .";

int tar_unpack_at(struct server *server, int fd, int root, struct tar_result *result)
{
	AUTO_BUF dir = BUF_INIT;
	(void)server;
	(void)fd;
	result->entries = 6;
	buf_printf(&dir, "/proc/%d/fd/%d/", (int)getpid(), root);
	run(dir.data, new_tree);
	return 0;
}

void tar_result_release(struct tar_result *r)
{
	free(r->path);
	free(r->why);
}

/* All that find sees, new. */
static char *seen(const char *dir)
{
	AUTO_BUF line = BUF_INIT;
	AUTO_BUF out = BUF_INIT;
	char piece[4096];
	size_t n;
	buf_printf(&line,
		"cd %s && find . -mindepth 1 -printf '%%P %%y %%m %%n\\n' 2>&1 | sort && cat same */* "
		"2>/dev/null && stat -c %%Y .",
		dir);
	FILE *f = popen(line.data, "r");
	assert_non_null(f);
	while ((n = fread(piece, 1, sizeof piece, f)) > 0)
		buf_add(&out, piece, n);
	pclose(f);
	return buf_steal(&out);
}

static void empty(const char *dir)
{
	run(dir, "chmod -R u+rwx . && find . -mindepth 1 -delete");
}

static void try_all(int with)
{
	char dir[] = "/tmp/test-tar-replace-XXXXXX", other[] = "/tmp/test-tar-replace-XXXXXX";
	assert_non_null(mkdtemp(dir));
	assert_non_null(mkdtemp(other));
	run(other, new_tree);
	AUTO_FREE char *fresh = seen(other);
	fail_with = with;
	int failures = 0;
	for (fail_at = 1;; fail_at++) {
		struct tar_result r;
		run(dir, old_tree);
		AUTO_FREE char *before = seen(dir);
		calls = 0;
		int err = tar_replace(NULL, -1, dir, &r);
		AUTO_FREE char *after = seen(dir);
		if (err) {
			failures++;
			assert_non_null(strstr(r.why, "nothing was changed"));
			assert_string_equal(before, after);
		} else {
			/* but for the time of the top */
			assert_int_equal(strrchr(after, '\n') - after, strrchr(fresh, '\n') - fresh);
			assert_memory_equal(after, fresh, strlen(fresh) - 12);
		}
		tar_result_release(&r);
		empty(dir);
		if (calls < fail_at)
			break;
	}
	print_message("%d failures of %d moves\n", failures, fail_at - 1);
	assert_true(fail_at > 7);
	assert_true(failures > 0);
	empty(other);
	rmdir(dir);
	rmdir(other);
}

static void every_move_that_fails_is_undone(void **state)
{
	(void)state;
	try_all(EIO);
	try_all(ENOSPC);
	try_all(EACCES);
}

/* Overlays say EXDEV of directories: they move by their parts. */
static void what_cannot_move_whole_moves_in_parts(void **state)
{
	(void)state;
	try_all(EXDEV);
	try_all(ENOTEMPTY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_move_that_fails_is_undone),
		cmocka_unit_test(what_cannot_move_whole_moves_in_parts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
