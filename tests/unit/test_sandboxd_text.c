/* links: contrib/common/buf.c contrib/sandboxd/text.c contrib/sandboxd/glob.c */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../contrib/sandboxd/glob.h"
#include "../../contrib/sandboxd/text.h"

static void assert_repaired(const char *in, size_t n, const char *want)
{
	AUTO_BUF b = BUF_INIT;
	assert_int_equal(text_repair(&b, in, n, true), n);
	assert_string_equal(b.data ? b.data : "", want);
}

static void bad_bytes_become_one_sign_each(void **state)
{
	(void)state;
	assert_repaired("plain", 5, "plain");
	assert_repaired("", 0, "");
	assert_repaired("\xff\xfe", 2, "\xef\xbf\xbd\xef\xbf\xbd");
	assert_repaired("a\x80z", 3, "a\xef\xbf\xbdz");
	assert_repaired(
		"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
	assert_repaired("\xe2\x82", 2, "\xef\xbf\xbd");
	assert_repaired("\xe2\x82z", 3, "\xef\xbf\xbd\xef\xbf\xbdz");
	assert_repaired("\xed\xa0\x80", 3, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
	assert_repaired("\xc0\xaf", 2, "\xef\xbf\xbd\xef\xbf\xbd");
}

static void a_character_cut_anywhere_waits_for_its_rest(void **state)
{
	(void)state;
	const char text[] = "x\xf0\x9f\x98\x80y\xe2\x82\xac";
	for (size_t cut = 0; cut < sizeof text; cut++) {
		AUTO_BUF b = BUF_INIT;
		size_t used = text_repair(&b, text, cut, false);
		assert_true(used <= cut && cut - used < 4);
		text_repair(&b, text + used, sizeof text - 1 - used, true);
		assert_string_equal(b.data, text);
	}
}

static void base64_round_trips_and_refuses_the_rest(void **state)
{
	(void)state;
	for (size_t n = 0; n < 70; n++) {
		unsigned char bytes[70];
		for (size_t i = 0; i < n; i++)
			bytes[i] = (unsigned char)(i * 37 + n);
		AUTO_BUF text = BUF_INIT;
		AUTO_BUF back = BUF_INIT;
		text_base64(&text, bytes, n);
		assert_int_equal(text_unbase64(&back, text.data ? text.data : "", text.size), 0);
		assert_int_equal(back.size, n);
		if (n)
			assert_memory_equal(back.data, bytes, n);
	}
	const char *bad[] = {"A", "AA==AA==", "A\nAA", "AA-_", "AAAAA", "=A", NULL};
	for (const char **s = bad; *s; s++) {
		AUTO_BUF back = BUF_INIT;
		assert_int_equal(text_unbase64(&back, *s, strlen(*s)), -EINVAL);
	}
}

static void globs_match_as_they_say(void **state)
{
	(void)state;
	assert_true(glob_match("*.c", "a.c"));
	assert_false(glob_match("*.c", "d/a.c"));
	assert_true(glob_match("**/*.c", "a.c"));
	assert_true(glob_match("**/*.c", "d/e/a.c"));
	assert_true(glob_match("a/**/b", "a/b"));
	assert_true(glob_match("a/**/b", "a/x/y/b"));
	assert_false(glob_match("a/**/b", "a/xb"));
	assert_true(glob_match("a/**", "a/x/y"));
	assert_true(glob_match("a?c*", "abcde"));
	assert_false(glob_match("a?c", "a/c"));
	assert_true(glob_match("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"));
	assert_false(glob_match("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
	assert_false(glob_match("", "x"));
	assert_true(glob_match("**", "any/thing"));
}

static void a_glob_without_a_slash_means_any_part(void **state)
{
	(void)state;
	assert_true(glob_covers("node_modules", "a/node_modules/b/c"));
	assert_true(glob_covers("*.ts", "src/x.ts"));
	assert_false(glob_covers("*.ts", "src/x.tsx"));
	assert_true(glob_covers("src/*", "src/x/y"));
	assert_false(glob_covers("src/*", "a/src/x"));
	assert_false(glob_covers("x", ""));
	assert_false(glob_is_plain("a[b]"));
	assert_true(glob_is_plain("**/a?*"));
}

static void errors_have_their_names(void **state)
{
	(void)state;
	AUTO_BUF b = BUF_INIT;
	text_errno(&b, -EISDIR);
	assert_string_equal(b.data, "EISDIR: illegal operation on a directory");
	buf_clear(&b);
	text_errno(&b, ENOENT);
	assert_string_equal(b.data, "ENOENT: no such file or directory");
	assert_int_equal(text_utf16_length("a\xc3\xa4\xf0\x9f\x98\x80", 7), 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_bytes_become_one_sign_each),
		cmocka_unit_test(a_character_cut_anywhere_waits_for_its_rest),
		cmocka_unit_test(base64_round_trips_and_refuses_the_rest),
		cmocka_unit_test(globs_match_as_they_say),
		cmocka_unit_test(a_glob_without_a_slash_means_any_part),
		cmocka_unit_test(errors_have_their_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
