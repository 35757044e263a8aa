/* links: contrib/common/buf.c sandboxfs/call.c ctl/log_match.c */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log_match.h"

/* Looks for pattern in text, fed in pieces of step bytes to stream 1, then the end. */
static int look(const char *pattern, const char *text, size_t size, size_t step, char **answer)
{
	struct log_match *m = NULL;
	AUTO_BUF out = BUF_INIT;
	struct call c;
	int got;

	call_init(&c, 0);
	got = log_match_new(&c, pattern, strlen(pattern), &m);
	for (size_t at = 0; got == 0 && at < size; at += step) {
		size_t n = size - at < step ? size - at : step;
		char *piece = malloc(n);
		memcpy(piece, text + at, n);
		got = log_match_feed(m, &c, 1, piece, n, &out);
		free(piece);
	}
	if (got == 0)
		got = log_match_end(m, &c, &out);
	if (got < 0)
		assert_int_equal(c.fault.err, -got);
	*answer = out.data ? strdup(out.data) : strdup("");
	log_match_free(m);
	call_destroy(&c);
	return got;
}

static void finds(const char *pattern, const char *text, const char *want)
{
	for (size_t step = 1; step <= strlen(text) + 1; step++) {
		char *answer;
		int got = look(pattern, text, strlen(text), step, &answer);

		if (want) {
			assert_int_equal(got, 1);
			assert_string_equal(answer, want);
		} else {
			assert_int_equal(got, 0);
		}
		free(answer);
	}
}

static void lines_are_matched_one_by_one(void **state)
{
	(void)state;
	finds("^b", "a\nbc\nbd\n", "bc\n");
	finds("c$", "a\nbc\n", "bc\n");
	finds("a\\nb", "a\nb\n", NULL);
	finds("^$", "a\n\nb\n", "\n");
	finds("x", "", NULL);
}

static void a_last_line_without_newline_counts_at_the_end(void **state)
{
	(void)state;
	finds("ready", "starting\nready", "ready\n");
}

static void groups_come_one_a_line(void **state)
{
	(void)state;
	finds("port (\\d+)( tcp)?( udp)? (\\w+)", "on port 8080 udp now\n",
		"on port 8080 udp now\n8080\n\n udp\nnow\n");
}

static void patterns_of_javascript_work(void **state)
{
	(void)state;
	finds("(?<who>\\w+) \\u00fcber",
		"wir \xc3\xbc"
		"ber\n",
		"wir \xc3\xbc"
		"ber\nwir\n");
	finds("[^]b", "ab\n", "ab\n");
	finds("(?<=\\$)\\d+(?!\\d)", "costs $42\n", "costs $42\n");
	finds("^.$", "\xe2\x82\xac\n", "\xe2\x82\xac\n"); /* one character, not three bytes */
}

static void bytes_that_are_no_text_are_matched_around(void **state)
{
	char *answer;

	(void)state;
	finds("b(.)d",
		"\xff\xfe"
		"bcd\x80\n",
		"\xff\xfe"
		"bcd\x80\nc\n");
	assert_int_equal(look("b", "a\0b\n", 4, 2, &answer), 1);
	free(answer);
}

static void a_pattern_that_is_wrong_says_where(void **state)
{
	struct log_match *m;
	struct call c;

	(void)state;
	call_init(&c, 0);
	assert_int_equal(log_match_new(&c, "a(b", 3, &m), -EINVAL);
	assert_non_null(strstr(c.fault.message, "wrong at byte 3"));
	call_destroy(&c);
}

static void a_match_without_end_is_an_error(void **state)
{
	char text[5000], *answer;

	(void)state;
	memset(text, 'a', sizeof text);
	text[sizeof text - 1] = '\n';
	text[sizeof text - 2] = '!';
	assert_int_equal(look("^(a|aa)+$", text, sizeof text, 1000, &answer), -EINVAL);
	free(answer);
}

static void streams_do_not_mix_their_lines(void **state)
{
	struct log_match *m;
	AUTO_BUF out = BUF_INIT;
	struct call c;

	(void)state;
	call_init(&c, 0);
	assert_int_equal(log_match_new(&c, "^hello$", 7, &m), 0);
	assert_int_equal(log_match_feed(m, &c, 1, "hel", 3, &out), 0);
	assert_int_equal(log_match_feed(m, &c, 2, "noise\n", 6, &out), 0);
	assert_int_equal(log_match_feed(m, &c, 1, "lo\n", 3, &out), 1);
	assert_string_equal(out.data, "hello\n");
	log_match_free(m);
	call_destroy(&c);
}

static void a_line_without_end_takes_bounded_memory(void **state)
{
	struct log_match *m;
	AUTO_BUF out = BUF_INIT;
	struct call c;
	char *piece = malloc(100000);

	(void)state;
	memset(piece, 'x', 100000);
	call_init(&c, 0);
	assert_int_equal(log_match_new(&c, "y", 1, &m), 0);
	for (int i = 0; i < 100; i++)
		assert_int_equal(log_match_feed(m, &c, 1, piece, 100000, &out), 0);
	assert_int_equal(log_match_feed(m, &c, 1, "y\ny\n", 4, &out), 1);
	assert_string_equal(out.data, "y\n");
	free(piece);
	log_match_free(m);
	call_destroy(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_are_matched_one_by_one),
		cmocka_unit_test(a_last_line_without_newline_counts_at_the_end),
		cmocka_unit_test(groups_come_one_a_line),
		cmocka_unit_test(patterns_of_javascript_work),
		cmocka_unit_test(bytes_that_are_no_text_are_matched_around),
		cmocka_unit_test(a_pattern_that_is_wrong_says_where),
		cmocka_unit_test(a_match_without_end_is_an_error),
		cmocka_unit_test(streams_do_not_mix_their_lines),
		cmocka_unit_test(a_line_without_end_takes_bounded_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
