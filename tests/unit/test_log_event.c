/* links: contrib/common/buf.c ctl/log_event.c */
#include <errno.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log_event.h"

static void put(
	struct log_event_state *s, struct buf *out, unsigned stream, const char *p, size_t n)
{
	struct feed_item item = {.kind = FEED_DATA, .stream = stream, .p = p, .n = n, .time = 1000000};

	log_event_put(s, &item, out);
}

static void finish(struct log_event_state *s, struct buf *out, int code)
{
	struct feed_item item = {.kind = FEED_EXIT, .code = code, .time = 2000000};

	log_event_put(s, &item, out);
	log_event_release(s);
}

/* All the text of one stream, from the lines in out, which must each be JSON. */
static char *join(const struct buf *out, const char *type, int *exits)
{
	AUTO_BUF text = BUF_INIT;
	char *copy = strdup(out->data), *save = NULL;

	*exits = 0;
	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		struct json_object *o = json_tokener_parse(line), *v;

		assert_non_null(o);
		assert_true(json_object_object_get_ex(o, "type", &v));
		const char *kind = json_object_get_string(v);
		*exits += strcmp(kind, "exit") == 0;
		if (strcmp(kind, type) == 0 && json_object_object_get_ex(o, "data", &v))
			buf_str(&text, json_object_get_string(v));
		json_object_put(o);
	}
	free(copy);
	return text.data ? buf_steal(&text) : strdup("");
}

static void characters_cut_between_pieces_come_whole(void **state)
{
	static const char text[] = "a\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80z";

	(void)state;
	for (size_t cut = 1; cut < sizeof text - 1; cut++) {
		struct log_event_state s;
		AUTO_BUF out = BUF_INIT;
		int exits;

		log_event_init(&s, "p");
		put(&s, &out, 1, text, cut);
		put(&s, &out, 2, "other", 5);
		put(&s, &out, 1, text + cut, sizeof text - 1 - cut);
		finish(&s, &out, 0);
		char *all = join(&out, "stdout", &exits);
		assert_string_equal(all, text);
		assert_int_equal(exits, 1);
		assert_null(strstr(out.data, "dataBase64"));
		free(all);
	}
}

static void bytes_that_are_no_utf8_come_exact_beside(void **state)
{
	struct log_event_state s;
	AUTO_BUF out = BUF_INIT;

	(void)state;
	log_event_init(&s, "p");
	put(&s, &out, 1, "a\xff\0b", 4);
	put(&s, &out, 2, "\xc3", 1); /* never goes on */
	finish(&s, &out, 3);
	assert_non_null(strstr(out.data, "\"dataBase64\":\"Yf8AYg==\""));
	assert_non_null(strstr(out.data, "\"dataBase64\":\"ww==\""));
	assert_non_null(strstr(out.data, "\"exitCode\":3"));
	assert_non_null(strstr(out.data, "\"timestamp\":\"1970-01-01T00:00:02.000Z\""));
}

static void utf8_is_judged_as_it_is_defined(void **state)
{
	static const struct {
		const char *text;
		size_t whole;
		bool valid;
	} cases[] = {
		{"abc", 3, true},
		{"\xc0\x80", 2, false},
		{"\xc1\xbf", 2, false},
		{"\xed\xa0\x80", 3, false},
		{"\xf4\x90\x80\x80", 4, false},
		{"\xf5", 1, false},
		{"\xe0\x9f\xbf", 3, false},
		{"\xf4\x8f\xbf\xbf", 4, true},
		{"a\xf0\x9f\x98", 1, true},
		{"\x80", 1, false},
		{"", 0, true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		bool valid;
		assert_int_equal(
			log_event_whole(cases[i].text, strlen(cases[i].text), &valid), cases[i].whole);
		assert_int_equal(valid, cases[i].valid);
	}
}

/* Output has this host's time, the end that of the sandbox, whose clock may be behind. */
static void times_keep_their_order(void **state)
{
	struct log_event_state s;
	AUTO_BUF out = BUF_INIT;
	struct feed_item data = {.kind = FEED_DATA, .stream = 1, .p = "x", .n = 1, .time = 5000000};

	(void)state;
	log_event_init(&s, "p");
	log_event_put(&s, &data, &out);
	finish(&s, &out, 0);
	const char *first = strstr(out.data, "\"timestamp\":\"1970-01-01T00:00:05.000Z\"");
	assert_non_null(first);
	assert_non_null(strstr(first + 1, "\"timestamp\":\"1970-01-01T00:00:05.000Z\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(characters_cut_between_pieces_come_whole),
		cmocka_unit_test(bytes_that_are_no_utf8_come_exact_beside),
		cmocka_unit_test(utf8_is_judged_as_it_is_defined),
		cmocka_unit_test(times_keep_their_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
