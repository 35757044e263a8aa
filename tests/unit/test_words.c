/* links: ctl/words.c sandboxfs/call.c contrib/common/buf.c */
/* Words, durations, numbers and JSON of the control files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"

static void check_split(const char *line, int argc, const char *const *want)
{
	int n;
	char **argv;
	/* In memory of its own size, without a NUL, as a write brings it. */
	size_t size = strlen(line);
	char *exact = malloc(size ? size : 1);
	memcpy(exact, line, size);
	assert_int_equal(ctl_split(NULL, exact, size, &n, &argv), 0);
	free(exact);
	assert_int_equal(n, argc);
	for (int i = 0; i < n; i++)
		assert_string_equal(argv[i], want[i]);
	assert_null(argv[n]);
	free(argv);
}

static void test_a_line_is_split_at_blanks(void **state)
{
	(void)state;
	check_split("", 0, NULL);
	check_split(" \t\r\n", 0, NULL);
	check_split("kill", 1, (const char *const[]){"kill"});
	check_split("  a b\tc  ", 3, (const char *const[]){"a", "b", "c"});
	check_split("a b c d e f g", 7, (const char *const[]){"a", "b", "c", "d", "e", "f", "g"});
}

static void test_quotes_keep_blanks(void **state)
{
	(void)state;
	check_split("'a b' c", 2, (const char *const[]){"a b", "c"});
	check_split("cwd='/a b'/c", 1, (const char *const[]){"cwd=/a b/c"});
	check_split("'it''s'", 1, (const char *const[]){"it's"});
	check_split("''", 1, (const char *const[]){""});
	check_split("'' ''", 2, (const char *const[]){"", ""});
	check_split("''''", 1, (const char *const[]){"'"});
	check_split("'\n'\\ \"", 2, (const char *const[]){"\n\\", "\""});
}

static void test_what_cannot_be_split_says_why(void **state)
{
	(void)state;
	struct call c;
	int n;
	char **argv;
	call_init(&c, 0);
	assert_int_equal(ctl_split(&c, "kill 'it", 8, &n, &argv), -EINVAL);
	assert_non_null(strstr(c.fault.message, "kill 'it"));
	call_destroy(&c);
	call_init(&c, 0);
	assert_int_equal(ctl_split(&c, "a\0b", 3, &n, &argv), -EINVAL);
	call_destroy(&c);
}

static void test_durations(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int64_t ms;
	} good[] = {{"500ms", 500}, {"30s", 30000}, {"10m", 600000}, {"2h", 7200000}, {"5", 5000},
		{"0", 0}, {"1.5", 1500}, {"0.25s", 250}, {"1.5h", 5400000}, {"0.0009", 0},
		{"1.2345", 1234}};
	static const char *const bad[] = {"", "s", "-1", "1d", "1 s", " 1", "1.", ".5", "1e3", "ms",
		"99999999999999999999", "1sx", "0x10", "+1"};
	int64_t ms;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(ctl_parse_duration(good[i].text, &ms), 0);
		assert_int_equal(ms, good[i].ms);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(ctl_parse_duration(bad[i], &ms), -EINVAL);
}

static void test_numbers(void **state)
{
	(void)state;
	int64_t v;
	assert_int_equal(ctl_parse_number("80", 1, 65535, &v), 0);
	assert_int_equal(v, 80);
	assert_int_equal(ctl_parse_number("-3", -5, 5, &v), 0);
	assert_int_equal(v, -3);
	assert_int_equal(ctl_parse_number("9223372036854775807", 0, INT64_MAX, &v), 0);
	assert_int_equal(v, INT64_MAX);
	static const char *const bad[] = {
		"", "0", "99999", "-", "8 0", "80x", " 80", "+80", "0x50", "9223372036854775808", "80\n"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(ctl_parse_number(bad[i], 1, 65535, &v), -EINVAL);
}

static bool is_json(const char *s)
{
	return ctl_is_json(s, strlen(s));
}

static void test_json_and_shell_are_told_apart(void **state)
{
	(void)state;
	assert_true(is_json("{}"));
	assert_true(is_json("{ \n }"));
	assert_true(is_json("{\"a\":1}"));
	assert_true(is_json("\n{ \"a\\\"b\" : 1"));
	assert_false(is_json("{ echo hi; }"));
	assert_false(is_json("{ \"/bin/ls\" -l; }"));
	assert_false(is_json("{ \"a"));
	assert_false(is_json("{ \"a\""));
	assert_false(is_json("{ \"a\\"));
	assert_false(is_json("{"));
	assert_false(is_json(""));
	assert_false(is_json("[1]"));
	assert_false(is_json("make {}"));
}

static char *json_fault(const char *text)
{
	struct call c;
	struct json_object *o = NULL;
	call_init(&c, 0);
	if (ctl_parse_json(&c, text, strlen(text), &o) != -EINVAL)
		fail_msg("%s is taken", text);
	assert_null(o);
	char *message = strdup(c.fault.message);
	call_destroy(&c);
	return message;
}

static void test_json_is_one_whole_object(void **state)
{
	(void)state;
	static const struct {
		const char *text, *says;
	} bad[] = {{"{\"a\": \"b", "JSON ends at byte 8; write a command or one whole object"},
		{"{\"a\": 1} x", "byte 9"}, {"{\"a\": 1}{}", "byte 8"}, {"{'a': 1}", "byte 1"},
		{"{\"a\": nope}", "byte 7"}, {"[1]", "byte 0"}, {"", "byte 0"},
		{"{\"a\":\"\xff\"}", "JSON"}, {"{\"a\":1,}", "JSON"}};
	struct json_object *o;
	const char *good = " {\"a\": 1, \"b\": {\"c\": [true, null]}} \n";
	assert_int_equal(ctl_parse_json(NULL, good, strlen(good), &o), 0);
	assert_int_equal(json_object_get_int(json_object_object_get(o, "a")), 1);
	json_object_put(o);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char *says = json_fault(bad[i].text);
		if (!strstr(says, bad[i].says))
			fail_msg("%s: %s", bad[i].text, says);
		free(says);
	}
}

static void test_json_depth_is_bounded(void **state)
{
	(void)state;
	char deep[2000] = "{\"a\":";
	memset(deep + 5, '[', 1000);
	struct json_object *o;
	assert_int_equal(ctl_parse_json(NULL, deep, strlen(deep), &o), -EINVAL);
}

static void test_unknown_keys_are_named(void **state)
{
	(void)state;
	static const char *const keys[] = {"command", "cwd", NULL};
	struct call c;
	call_init(&c, 0);
	struct json_object *o = json_tokener_parse("{\"command\": \"x\", \"cwd\": \"/\"}");
	assert_int_equal(ctl_check_keys(&c, o, keys), 0);
	json_object_put(o);
	o = json_tokener_parse("{\"command\": \"x\", \"cvd\": \"/\"}");
	assert_int_equal(ctl_check_keys(&c, o, keys), -EINVAL);
	assert_string_equal(c.fault.message, "unknown key \"cvd\"; known are: command cwd");
	json_object_put(o);
	call_destroy(&c);
}

static void test_a_copy_shares_nothing(void **state)
{
	(void)state;
	struct json_object *copy, *o = json_tokener_parse("{\"a\":[1.50,\"x\",null],\"b\":{}}");
	assert_int_equal(ctl_json_copy(o, &copy), 0);
	assert_ptr_not_equal(json_object_object_get(copy, "b"), json_object_object_get(o, "b"));
	assert_int_equal(json_object_put(o), 1);
	assert_string_equal(json_object_to_json_string_ext(copy, JSON_C_TO_STRING_PLAIN),
		"{\"a\":[1.50,\"x\",null],\"b\":{}}");
	assert_int_equal(json_object_put(copy), 1);
	assert_int_equal(ctl_json_copy(NULL, &copy), 0);
	assert_null(copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_line_is_split_at_blanks),
		cmocka_unit_test(test_quotes_keep_blanks),
		cmocka_unit_test(test_what_cannot_be_split_says_why),
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_json_and_shell_are_told_apart),
		cmocka_unit_test(test_json_is_one_whole_object),
		cmocka_unit_test(test_json_depth_is_bounded),
		cmocka_unit_test(test_unknown_keys_are_named),
		cmocka_unit_test(test_a_copy_shares_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
