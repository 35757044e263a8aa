/* links: sandboxfs/bridge_events.c sandboxfs/shown.c contrib/common/buf.c */
/* The events of a bridge's exec, as an honest one sends them and as one that means ill. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bridge_events.h"

static int take(struct bridge_answer *a, struct buf *out, const char *text)
{
	char *copy = strdup(text);
	assert_non_null(copy);
	*a = (struct bridge_answer){.out = out};
	int rc = bridge_events_take(a, copy);
	free(copy);
	return rc;
}

static void output_and_exit_code(void **state)
{
	(void)state;
	struct bridge_answer a;
	AUTO_BUF out = BUF_INIT;
	assert_int_equal(
		take(&a, &out,
			"event: stdout\ndata: aGkK\n\nevent: stderr\ndata: bm8K\n\n"
			"event: stdout\r\ndata: aG8K\r\n\r\nevent: exit\ndata: {\"exit_code\":3}\n\n"),
		0);
	assert_true(a.ended);
	assert_int_equal(a.status, 3);
	assert_string_equal(out.data, "hi\nho\n");
	assert_null(a.error);
}

static void a_cut_answer_has_no_end(void **state)
{
	(void)state;
	struct bridge_answer a;
	AUTO_BUF out = BUF_INIT;
	assert_int_equal(take(&a, &out, "event: stdout\ndata: aGkK\n\nevent: exit\ndata: {\"exit_"), 0);
	assert_false(a.ended);
}

static void what_is_no_base64_is_refused(void **state)
{
	(void)state;
	struct bridge_answer a;
	AUTO_BUF out = BUF_INIT;
	assert_int_not_equal(take(&a, &out, "event: stdout\ndata: %%%\n"), 0);
}

static void null_and_other_types_are_no_answer(void **state)
{
	(void)state;
	static const char *const texts[] = {"event: error\ndata: {\"error\":null}\n",
		"event: error\ndata: {\"error\":{\"error\":1}}\n", "event: error\ndata: null\n",
		"event: error\ndata: [\n", "event: exit\ndata: {\"exit_code\":null}\n",
		"event: exit\ndata: {\"exit_code\":\"0\"}\n"};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct bridge_answer a;
		AUTO_BUF out = BUF_INIT;
		assert_int_equal(take(&a, &out, texts[i]), 0);
		assert_false(a.ended);
		assert_null(a.error);
	}
}

static void an_error_steers_no_terminal_and_is_short(void **state)
{
	(void)state;
	struct bridge_answer a;
	AUTO_BUF out = BUF_INIT;
	AUTO_BUF text = BUF_INIT;
	buf_str(&text, "event: error\ndata: {\"error\":\"\\u001b[2J\\u009b2J no");
	for (int i = 0; i < 10000; i++)
		buf_char(&text, 'o');
	buf_str(&text, "\"}\n");
	assert_int_equal(take(&a, &out, text.data), 0);
	assert_non_null(a.error);
	assert_memory_equal(a.error, "\\033[2J\\302\\2332J noo", 20);
	assert_true(strlen(a.error) < 500);
	free(a.error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(output_and_exit_code),
		cmocka_unit_test(a_cut_answer_has_no_end),
		cmocka_unit_test(what_is_no_base64_is_refused),
		cmocka_unit_test(null_and_other_types_are_no_answer),
		cmocka_unit_test(an_error_steers_no_terminal_and_is_short),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
