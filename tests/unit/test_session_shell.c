/* links: contrib/common/buf.c contrib/sandboxd/session_shell.c */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "../../contrib/sandboxd/session_shell.h"

static const char said[] = "\0B 7\0\0R 7 3\0\0R 7 0\0A=1\0B=x\ny=z\0_=/bin/cat\0OK\0";

static void assert_said(const struct shell_answers *a)
{
	static const char environment[] = "A=1\0B=x\ny=z";
	assert_int_equal(a->begun, 7);
	assert_int_equal(a->number, 7);
	assert_int_equal(a->status, 3);
	assert_true(a->changed);
	assert_int_equal(a->environment_number, 7);
	assert_int_equal(a->environment.size, sizeof environment);
	assert_memory_equal(a->environment.data, environment, sizeof environment);
}

static void answers_may_come_in_any_pieces(void **state)
{
	(void)state;
	for (size_t cut = 0; cut < sizeof said; cut++) {
		struct shell_answers a = {0};
		assert_int_equal(shell_answers_add(&a, said, cut), 0);
		assert_int_equal(shell_answers_add(&a, said + cut, sizeof said - 1 - cut), 0);
		assert_said(&a);
		shell_answers_release(&a);
	}
}

static void variables_that_were_cut_are_not_believed(void **state)
{
	(void)state;
	struct shell_answers a = {0};
	shell_answers_add(&a, said, sizeof said - 1);
	a.changed = false;
	static const char cut[] = "\0R 8 0\0A=2\0C=half\0R 9 130\0OK\0";
	shell_answers_add(&a, cut, sizeof cut - 1);
	assert_int_equal(a.number, 9);
	assert_int_equal(a.status, 130);
	assert_false(a.changed);
	assert_string_equal(a.environment.data, "A=1");
	shell_answers_release(&a);
}

static void nonsense_is_no_answer(void **state)
{
	(void)state;
	struct shell_answers a = {0};
	static const char nonsense[] = "R\0R x 1\0R 1\0R 1 2 3\0R 1 2x\0you have mail\nR 1 2\0";
	shell_answers_add(&a, nonsense, sizeof nonsense - 1);
	assert_int_equal(a.number, 0);
	shell_answers_release(&a);
}

static void endless_answers_take_bounded_memory(void **state)
{
	(void)state;
	struct shell_answers a = {0};
	char piece[4096];
	memset(piece, 'x', sizeof piece);
	for (int i = 0; i < 1000; i++)
		shell_answers_add(&a, piece, sizeof piece);
	assert_true(a.token.size <= SHELL_ENVIRONMENT_MAX);
	shell_answers_add(&a, said, sizeof said - 1);
	assert_said(&a);
	for (int i = 0; i < 3000; i++) {
		memcpy(piece, "A=", 2);
		piece[sizeof piece - 1] = '\0';
		shell_answers_add(&a, piece, sizeof piece);
	}
	assert_true(a.incoming.size <= SHELL_ENVIRONMENT_MAX + sizeof piece);
	a.changed = false;
	shell_answers_add(&a, "OK", 3);
	assert_false(a.changed);
	shell_answers_release(&a);
}

static void text_comes_in_quotes(void **state)
{
	(void)state;
	AUTO_BUF b = BUF_INIT;
	struct json_object *env = json_tokener_parse("{\"A\":\"it's\",\"N\":null}");
	shell_text(&b, "echo 'x", NULL, env);
	assert_string_equal(b.data, "A='it'\\''s' command eval 'echo '\\''x'\n");
	buf_clear(&b);
	shell_text(&b, "pwd", "-d", NULL);
	assert_string_equal(b.data,
		"command cd -- './-d' >/dev/null 2>&1 || { command printf %s "
		"'Failed to change directory to '\\''-d'\\''' >&2; return 1; }; command eval 'pwd'\n");
	json_object_put(env);
}

static void a_private_directory_leaves_nothing(void **state)
{
	(void)state;
	AUTO_BUF text = BUF_INIT;
	char *work = NULL;
	int reads[2], writes[2];
	struct stat st;
	buf_str(&text, "x");
	assert_int_equal(shell_work_new("/no/such", &text, "x", -1, &work, reads, writes), -ENOENT);
	assert_null(work);
	assert_int_equal(shell_work_new("/tmp", &text, "x", -1, &work, reads, writes), 0);
	char *name = strdup(work);
	assert_int_equal(stat(work, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	for (int i = 0; i < 2; i++) {
		char c;
		assert_int_equal(write(writes[i], "y", 1), 1);
		assert_int_equal(read(reads[i], &c, 1), 1);
		assert_int_equal(read(reads[i], &c, 1), -1);
		assert_int_equal(errno, EAGAIN);
		close(writes[i]);
		assert_int_equal(read(reads[i], &c, 1), 0);
		close(reads[i]);
	}
	shell_work_remove(&work);
	assert_null(work);
	assert_int_equal(stat(name, &st), -1);
	free(name);
	shell_work_remove(&work);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_may_come_in_any_pieces),
		cmocka_unit_test(variables_that_were_cut_are_not_believed),
		cmocka_unit_test(nonsense_is_no_answer),
		cmocka_unit_test(endless_answers_take_bounded_memory),
		cmocka_unit_test(text_comes_in_quotes),
		cmocka_unit_test(a_private_directory_leaves_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
