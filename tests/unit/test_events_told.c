/* links: contrib/common/buf.c sandboxfs/shown.c ctl/events_told.c */
/* Lines of changes from a server: what a reader gets of them, and which it does not get. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "events_told.h"

static int told(const char *line, size_t n, struct buf *out)
{
	char *exact = malloc(n ? n : 1); /* a byte too far is seen */

	memcpy(exact, line, n);
	int err = events_told_add(exact, n, out);
	free(exact);
	return err;
}

static void lines_of_a_server_pass(void **state)
{
	static const char *const lines[] = {"create\ta\n", "delete\ta/b/\n", "move\ta b\tc/\n",
		"attrib\t./\n", "modify\tn\\012l\\134\n", "create\t..a/b../...\n", "create\t\xc3\xa4\xff\n",
		"create\ta\\056/b\n"};

	(void)state;
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		AUTO_BUF out = BUF_INIT;
		assert_int_equal(told(lines[i], strlen(lines[i]), &out), 0);
		assert_string_equal(out.data, lines[i]);
	}
}

static void what_steers_a_terminal_is_escaped(void **state)
{
	AUTO_BUF out = BUF_INIT;
	static const char line[] = "move\ta\033[31m\rb\tc\x9b\xc2\x85\\011\n";

	(void)state;
	assert_int_equal(told(line, sizeof line - 1, &out), 0);
	assert_string_equal(out.data, "move\ta\\033[31m\\015b\tc\\233\\302\\205\\011\n");
}

static void paths_that_lead_out_are_refused(void **state)
{
	static const char *const lines[] = {"create\t/etc/passwd\n", "create\t..\n", "create\t../x\n",
		"create\ta/../../x\n", "create\ta/..\n", "create\ta/../\n", "move\ta\t../b\n",
		"move\t/a\tb\n", "create\t\\057etc\n", "create\t\\056\\056/x\n", "create\ta\\057../x\n",
		"create\t.\\056\n", "create\ta\\000b\n", "create\t\\\n", "create\t\\9\n", "create\t\\01\n",
		"create\t\\400\n", "create\t\n", "create\ta\t\n", "create\t\ta\n", "move\ta\tb\tc\n",
		"create\n", "create", "", "\n", "\ta\n", "Create\ta\n", "a b\tc\n", "\033[0m\ta\n",
		"abcdefghijklmnopq\ta\n", "create\ta"};

	(void)state;
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		AUTO_BUF out = BUF_INIT;
		assert_int_equal(told(lines[i], strlen(lines[i]), &out), -EPROTO);
		assert_int_equal(out.size, 0);
	}
	AUTO_BUF out = BUF_INIT;
	assert_int_equal(told("create\ta\0b\n", 11, &out), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_of_a_server_pass),
		cmocka_unit_test(what_steers_a_terminal_is_escaped),
		cmocka_unit_test(paths_that_lead_out_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
