/* links: contrib/common/buf.c sandboxfs/call.c ctl/words.c ctl/events_line.c */
/* The first line of events, and the requests made of it. */
#include <errno.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "events_line.h"

static int parse(struct call *c, const char *line, struct events_request *q)
{
	size_t n = strlen(line);
	char *exact = malloc(n ? n : 1);
	memcpy(exact, line, n);
	int err = events_request_parse(c, exact, n, q);
	free(exact);
	return err;
}

static void test_body(void **state)
{
	static const char *const cases[][2] = {
		{"", "{}"},
		{"src", "{\"dir\":\"src\"}"},
		{"/workspace//a/b", "{\"dir\":\"a/b\"}"},
		{"/workspace", "{\"dir\":\"\"}"},
		{"/workspace/a=b", "{\"dir\":\"a=b\"}"},
		{"src/a=b", "{\"dir\":\"src/a=b\"}"},
		{"'a b' recursive=no", "{\"dir\":\"a b\",\"recursive\":false}"},
		{"include=*.c include=*.h exclude=x",
			"{\"include\":[\"*.c\",\"*.h\"],\"exclude\":[\"x\"]}"},
		{"recursive=yes recursive=no", "{\"recursive\":false}"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct events_request q;
		struct call c;
		call_init(&c, 0);
		assert_int_equal(parse(&c, cases[i][0], &q), 0);
		assert_string_equal(json_object_to_json_string_ext(
								q.body, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE),
			cases[i][1]);
		assert_false(q.asks);
		events_request_release(&q);
		call_destroy(&c);
	}
}

static void test_refused(void **state)
{
	static const char *const cases[] = {"/etc", "/workspacex", "../x", "a/../../b", "a b",
		"a recursive=maybe", "recursive=maybe", "inclde=*.c", "bogus=1",
		"include=", "a include=", "a what=ever", "'a"};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct events_request q;
		struct call c;
		call_init(&c, 0);
		assert_int_equal(parse(&c, cases[i], &q), -EINVAL);
		assert_non_null(c.fault.message);
		call_destroy(&c);
	}
}

static void test_check(void **state)
{
	struct events_request q;
	struct call c;
	(void)state;
	call_init(&c, 0);
	assert_int_equal(parse(&c, "src since=v:1 recursive=no", &q), 0);
	assert_true(q.asks);
	struct json_object *o = events_request_check(&q);
	assert_string_equal(
		json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE),
		"{\"path\":\"/workspace/src\",\"recursive\":false,\"exclude\":[\"a//"
		"b\"],\"since\":\"v:1\"}");
	json_object_put(o);
	events_request_release(&q);
	assert_int_equal(parse(&c, "since= include=x", &q), 0);
	o = events_request_check(&q);
	assert_string_equal(
		json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE),
		"{\"path\":\"/workspace\",\"include\":[\"x\"]}");
	json_object_put(o);
	events_request_release(&q);
	call_destroy(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_body),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_check),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
