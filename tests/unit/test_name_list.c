/* links: ctl/name_list.c */
/* Names come sorted and once each, whatever the order they were added in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "name_list.h"

static bool join(const char *name, void *text)
{
	strcat(strcat(text, name), " ");
	return strcmp(name, "c") != 0;
}

static void sorted_and_once_each(void **state)
{
	(void)state;
	static const char *const words[] = {"c", "a", "d", "a", "b", "c", ""};
	AUTO_NAME_LIST l = {0};
	char text[32] = "";
	assert_int_equal(name_list_sort(&l), 0);
	assert_false(name_list_has(&l, "a"));
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		assert_true(name_list_add(words[i], &l));
	assert_int_equal(name_list_sort(&l), 0);
	assert_int_equal(l.count, 5);
	assert_true(name_list_has(&l, "") && name_list_has(&l, "d"));
	assert_false(name_list_has(&l, "e"));
	name_list_each(&l, join, text);
	assert_string_equal(text, " a b c ");
}

static void there_may_be_many(void **state)
{
	(void)state;
	enum { MANY = 1000 };
	AUTO_NAME_LIST l = {0};
	char name[16];
	for (int i = 0; i < 2 * MANY; i++) {
		snprintf(name, sizeof name, "%d", i * 7 % MANY);
		assert_true(name_list_add(name, &l));
	}
	assert_int_equal(name_list_sort(&l), 0);
	assert_int_equal(l.count, MANY);
	assert_true(name_list_has(&l, "999"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sorted_and_once_each),
		cmocka_unit_test(there_may_be_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
