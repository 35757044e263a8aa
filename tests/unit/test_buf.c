/* links: contrib/common/buf.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buf.h"

static void text_grows_and_stays_terminated(void **state)
{
	(void)state;
	AUTO_BUF b = BUF_INIT;
	for (int i = 0; i < 1000; i++)
		buf_printf(&b, "%d,", i);
	assert_int_equal(buf_error(&b), 0);
	assert_int_equal(strlen(b.data), b.size);
	buf_consume(&b, 4);
	assert_memory_equal(b.data, "2,3,", 4);
	buf_clear(&b);
	assert_string_equal(b.data, "");
	buf_char(&b, 'x');
	char *s = buf_steal(&b);
	assert_string_equal(s, "x");
	free(s);
	assert_null(b.data);
	s = buf_steal(&b);
	assert_string_equal(s, "");
	free(s);
}

static void an_impossible_size_is_an_error(void **state)
{
	(void)state;
	AUTO_BUF b = BUF_INIT;
	buf_str(&b, "x");
	assert_null(buf_reserve(&b, SIZE_MAX));
	assert_int_not_equal(buf_error(&b), 0);
	buf_str(&b, "ignored");
	assert_null(buf_steal(&b));
	assert_int_equal(buf_error(&b), 0);
}

static void what_is_written_reads_back(void **state)
{
	(void)state;
	AUTO_BUF b = BUF_INIT;
	buf_u8(&b, 0xfe);
	buf_u16(&b, 0x1234);
	buf_u32(&b, 0);
	buf_u64(&b, 0x1122334455667788);
	buf_bytes(&b, "ab\0c", 4);
	buf_bytes(&b, "name", 4);
	buf_patch_u32(&b, 3, 0xdeadbeef);
	assert_int_equal((unsigned char)b.data[1], 0x34);
	struct reader r;
	reader_init(&r, b.data, b.size);
	assert_int_equal(reader_u8(&r), 0xfe);
	assert_int_equal(reader_u16(&r), 0x1234);
	assert_int_equal(reader_u32(&r), 0xdeadbeef);
	assert_true(reader_u64(&r) == 0x1122334455667788);
	size_t n;
	assert_memory_equal(reader_bytes(&r, &n), "ab\0c", 4);
	assert_int_equal(n, 4);
	char *s = reader_str(&r);
	assert_string_equal(s, "name");
	free(s);
	assert_false(r.bad);
	assert_int_equal(r.left, 0);
}

static void a_reader_never_leaves_its_bytes(void **state)
{
	(void)state;
	struct reader r;
	size_t n = 99;
	reader_init(&r, "\xff\xff\xff\xff", 4);
	assert_null(reader_bytes(&r, &n));
	assert_int_equal(n, 0);
	assert_true(r.bad);
	assert_int_equal(reader_u8(&r), 0);
	reader_init(&r, NULL, 0);
	assert_non_null(reader_take(&r, 0));
	assert_false(r.bad);
	assert_int_equal(reader_u64(&r), 0);
	assert_true(r.bad);
	reader_init(&r, "\2\0\0\0a\0", 6);
	assert_null(reader_str(&r));
	assert_true(r.bad);
}

static void any_text_survives_the_shell(void **state)
{
	(void)state;
	const char *words[] = {
		"", "plain", "it's", "'", "''x''", "a b\n$x `y` \\ \"", "-n", "\xff\x01*?[", NULL};
	for (const char **w = words; *w; w++) {
		AUTO_BUF b = BUF_INIT;
		buf_str(&b, "printf %s ");
		buf_shell_quote(&b, *w);
		FILE *f = popen(b.data, "r");
		assert_non_null(f);
		char got[100];
		size_t n = fread(got, 1, sizeof got, f);
		assert_int_equal(pclose(f), 0);
		assert_int_equal(n, strlen(*w));
		assert_memory_equal(got, *w, n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_grows_and_stays_terminated),
		cmocka_unit_test(an_impossible_size_is_an_error),
		cmocka_unit_test(what_is_written_reads_back),
		cmocka_unit_test(a_reader_never_leaves_its_bytes),
		cmocka_unit_test(any_text_survives_the_shell),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
