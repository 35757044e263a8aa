/* links: contrib/common/buf.c sandboxfs/call.c ctl/words.c ctl/git_line.c */
/* Lines of git, the scripts made of them, and what git's messages mean. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "git_line.h"

static struct call the_call;

static int parse(const char *line, struct git_request *q)
{
	size_t n = strlen(line);
	char *exact = malloc(n ? n : 1);
	memcpy(exact, line, n);
	fault_clear(&the_call.fault);
	int err = git_request_parse(&the_call, exact, n, q);
	free(exact);
	return err;
}

static int setup(void **state)
{
	(void)state;
	call_init(&the_call, 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	call_destroy(&the_call);
	return 0;
}

static void test_directory(void **state)
{
	static const char *const cases[][2] = {
		{"https://h/a/b.git", "/workspace/b"},
		{"https://h/a/b/", "/workspace/b"},
		{"git@h:b.git", "/workspace/b"},
		{"/srv/x/.git", "/workspace/x"},
		{"file:///srv/x.git/", "/workspace/x"},
		{"x dir=a//b/./c", "/workspace/a/b/c"},
		{"x dir=/workspace", "/workspace"},
		{"x dir=.", "/workspace"},
		{"x dir='a b'", "/workspace/a b"},
		{"x dir=/workspace/..a", "/workspace/..a"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct git_request q;
		assert_int_equal(parse(cases[i][0], &q), 0);
		assert_string_equal(q.dir, cases[i][1]);
		git_request_release(&q);
	}
}

static void test_refused(void **state)
{
	static const char *const cases[] = {"", "  ", "https://h/", "https://h", "..", "x dir=../y",
		"x dir=/etc", "x dir=/workspacex", "x dir=a/../b", "x depth=0", "x depth=-1", "x depth=1x",
		"x timeout=", "x timeout=0", "x branch=", "x branch=--upload-pack=sh", "x what", "x 'y",
		"ext::sh -c x", "https://u:%0ahost=evil@h/x", "ssh://u:p@h/x", "https://u:p@h'$(x)'/y"};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct git_request q;
		int err = parse(cases[i], &q);
		if (err != -EINVAL)
			print_error("%s\n", cases[i]);
		assert_int_equal(err, -EINVAL);
		assert_non_null(the_call.fault.message);
	}
}

static void test_password_is_in_no_script_and_no_message(void **state)
{
	AUTO_BUF script = BUF_INIT;
	AUTO_BUF input = BUF_INIT;
	struct git_request q;
	(void)state;
	assert_int_equal(parse("https://me:s%65cret@h:8/a.git depth=3 branch=b", &q), 0);
	assert_string_equal(q.url, "https://h:8/a.git");
	assert_string_equal(q.server, "https://h:8");
	assert_int_equal(git_request_script(&q, "/workspace/.clone-1", &script, &input), 0);
	assert_null(strstr(script.data, "cret"));
	assert_null(strstr(script.data, "me@"));
	assert_string_equal(input.data, "me\nsecret\n");
	git_request_release(&q);
	static const char *const wrong[] = {"https://me:secret@h/a https://me:secret@h/a",
		"'https://me:secret@h/a", "ssh://me:secret@h/a", "https://me:secret@h/a x://y:secret@z",
		"https://me:sec%0aret@h/a secret@", "https://me:secret@h/"};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		assert_int_equal(parse(wrong[i], &q), -EINVAL);
		assert_null(strstr(the_call.fault.message, "secret"));
	}
}

static void test_words_are_quoted(void **state)
{
	AUTO_BUF script = BUF_INIT;
	AUTO_BUF input = BUF_INIT;
	AUTO_BUF stage = BUF_INIT;
	struct git_request q;
	(void)state;
	assert_int_equal(parse("-x'$(touch y)' branch=$(z) dir='a''b'", &q), 0);
	assert_int_equal(git_request_stage(&q, "1", &stage), 0);
	assert_string_equal(stage.data, "/workspace/.clone-1");
	assert_int_equal(git_request_script(&q, stage.data, &script, &input), 0);
	assert_non_null(strstr(script.data, "-- '-x$(touch y)' \"$t\""));
	assert_non_null(strstr(script.data, "--branch '$(z)'"));
	assert_int_equal(input.size, 0);
	git_request_release(&q);
}

static void test_meanings(void **state)
{
	static const struct {
		const char *said;
		int code, err;
		const char *why;
	} cases[] = {
		{"Cloning into 'x'...\nfatal: Authentication failed for 'https://h/'\n", 128, EACCES,
			"Authentication failed for 'https://h/'"},
		{"fatal: could not read Username for 'https://h': terminal prompts disabled\n", 128, EACCES,
			NULL},
		{"me@h: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\n"
		 "Please make sure you have the correct access rights\n",
			128, EACCES, "Could not read from remote repository."},
		{"warning: x\nfatal: Remote branch b not found in upstream origin\n", 128, ENOENT,
			"Remote branch b not found in upstream origin"},
		{"fatal: unable to access 'https://h/': Could not resolve host: h\n", 128, EHOSTUNREACH,
			NULL},
		{"fatal: destination path 'x' already exists and is not an empty directory.\n", 128, EEXIST,
			NULL},
		{"git: command not found\n", 127, ENOTSUP, "the sandbox has no git; install it there"},
		{"error: first\nfatal: cause\nfatal: more\n", 128, EIO, "cause"},
		{"only\rprogress", 1, EIO, "progress"},
		{"", 9, EIO, "git ended with exit code 9"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		AUTO_BUF why = BUF_INIT;
		assert_int_equal(git_errno(cases[i].said, cases[i].code, &why), cases[i].err);
		if (cases[i].why)
			assert_string_equal(why.data, cases[i].why);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_password_is_in_no_script_and_no_message, setup, teardown),
		cmocka_unit_test_setup_teardown(test_words_are_quoted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_meanings, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
