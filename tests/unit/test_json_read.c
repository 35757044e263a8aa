/* links: contrib/common/buf.c */
/* JSON of others: what would take more memory than may be is not read, whatever it is hidden behind. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buf.h"
#include "json_read.h"

static int read_text(const char *text, size_t most)
{
	struct json_object *o;
	size_t n = strlen(text);
	char *exact = malloc(n ? n : 1); /* a byte too far is seen */
	assert_non_null(exact);
	memcpy(exact, text, n);
	int err = json_read(exact, n, JSON_DEPTH, most, &o);
	free(exact);
	json_object_put(o);
	return err;
}

static void values_are_read(void **state)
{
	(void)state;
	assert_int_equal(read_text("{\"a\":[1,2.5,\"{[,:\\\"{[\",null]}", 4096), 0);
	assert_int_equal(read_text("[null]", JSON_LIST_WEIGHT), 0);
	assert_int_equal(read_text("[\"'/{[,\\\\\"]", JSON_LIST_WEIGHT), 0);
}

static void no_json_is_told(void **state)
{
	(void)state;
	const char *const wrong[] = {"", "{", "\"", "\"\\", "x", "{'a':1}", "/**/{}"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_int_equal(read_text(wrong[i], 4096), -EPROTO);
}

/* What the reader might take for text, and json-c for none. */
static void nothing_hides_values(void **state)
{
	(void)state;
	const char *const heads[] = {"[", "[\"\\\\\",", "[\"a\\\"b\",", "[\"\",", "['\"',", "[/*\"*/",
		"{\"\\\\\\\\\":[", "[//\"\n"};
	for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
		AUTO_BUF b = BUF_INIT;
		buf_str(&b, heads[i]);
		for (int k = 0; k < 2000; k++)
			buf_str(&b, "{},");
		buf_str(&b, "'\"']");
		assert_int_equal(buf_error(&b), 0);
		int err = read_text(b.data, 1 << 20);
		assert_true(err == -EFBIG || err == -EPROTO);
		assert_true(json_weight(b.data, b.size, 1 << 20) > 1 << 20);
	}
}

/* The weight of what repeats is no less than the memory that it takes. */
static void weights_are_true(void **state)
{
	(void)state;
	const char *const what[] = {"{}", "[]", "1", "0.5", "\"x\"", "{\"a\":1}", "[1]", "true",
		("{\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6,\"g\":7,\"h\":8,\"i\":9,\"j\":1,\"k\":"
		 "2}")};
	for (size_t i = 0; i < sizeof what / sizeof *what; i++) {
		AUTO_BUF b = BUF_INIT;
		struct json_object *o;
		for (int k = 0; k < 20000; k++)
			buf_printf(&b, "%s%s", k ? "," : "[", what[i]);
		buf_char(&b, ']');
		assert_int_equal(buf_error(&b), 0);
		size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
		assert_int_equal(json_read(b.data, b.size, JSON_DEPTH, 1 << 30, &o), 0);
		size_t took = mallinfo2().uordblks + mallinfo2().hblkhd - before;
		size_t weight = json_weight(b.data, b.size, 1 << 30);
		json_object_put(o);
		if (took > weight + b.size)
			fail_msg("20000 of %s took %zu bytes and weigh %zu", what[i], took, weight);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(values_are_read),
		cmocka_unit_test(no_json_is_told), cmocka_unit_test(nothing_hides_values),
		cmocka_unit_test(weights_are_true)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
