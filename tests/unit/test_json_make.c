/* links: contrib/common/buf.c */
/* JSON out of values that may not have been had: what is torn stays torn, whatever it is put into, and has no text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "json_make.h"

static void what_is_whole_has_its_text(void **state)
{
	(void)state;
	struct json_object *o = json_object_new_object(), *list = json_object_new_array();
	struct json_object *given = json_object_new_string("a/b");
	size_t n = 0;
	assert_true(json_append(list, json_object_new_int(1)));
	assert_true(json_add(o, "list", list));
	assert_true(json_add_as(o, "given", given));
	assert_true(json_add_as(o, "null", NULL));
	const char *text = json_text_of(o, &n);
	assert_string_equal(text, "{\"list\":[1],\"given\":\"a/b\",\"null\":null}");
	assert_int_equal(n, strlen(text));
	assert_non_null(json_text_of(o, NULL));
	json_object_put(o);
	assert_string_equal(json_object_get_string(given), "a/b"); /* still its owner's */
	json_object_put(given);
}

static void a_value_that_was_not_had_tears_what_it_was_for(void **state)
{
	(void)state;
	struct json_object *o = json_object_new_object(), *list = json_object_new_array();
	struct json_object *outer = json_object_new_object();
	assert_false(json_append(list, NULL));
	assert_true(json_append(list, json_object_new_int(2))); /* it stays torn */
	assert_false(json_whole(list));
	assert_false(json_add(o, "list", list)); /* which is put */
	assert_null(json_text_of(o, NULL));
	assert_false(json_add(outer, "inner", o));
	assert_null(json_text_of(outer, NULL));
	json_object_put(outer);
}

static void an_object_that_was_not_had_takes_nothing(void **state)
{
	(void)state;
	assert_false(json_add(NULL, "a", json_object_new_int(1)));
	assert_false(json_add_as(NULL, "a", NULL));
	assert_false(json_append(NULL, json_object_new_string("x")));
	assert_false(json_whole(NULL));
	assert_null(json_text_of(NULL, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_whole_has_its_text),
		cmocka_unit_test(a_value_that_was_not_had_tears_what_it_was_for),
		cmocka_unit_test(an_object_that_was_not_had_takes_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
