/* links: contrib/common/buf.c sandboxfs/shown.c */
/* Text from outside: what a terminal would obey is escaped, all else stays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shown.h"

static void check(const char *given, size_t n, enum shown_backslash backslash, const char *wanted)
{
	AUTO_BUF out = BUF_INIT;
	char *exact = malloc(n ? n : 1); /* a byte too far is seen */

	memcpy(exact, given, n);
	shown_add(&out, exact, n, backslash);
	free(exact);
	assert_int_equal(buf_error(&out), 0);
	assert_string_equal(out.size ? out.data : "", wanted);
}

static void controls_are_octal(void **state)
{
	(void)state;
	check("a\033]0;x\a\n\t\r\177 b", 13, SHOWN_ESCAPE, "a\\033]0;x\\007\\012\\011\\015\\177 b");
	check("\0", 1, SHOWN_ESCAPE, "\\000");
	check("", 0, SHOWN_ESCAPE, "");
}

static void c1_is_octal_alone_and_as_utf8(void **state)
{
	(void)state;
	check("\x9b"
		  "31m",
		4, SHOWN_ESCAPE, "\\23331m");
	check("\xc2\x9b", 2, SHOWN_ESCAPE, "\\302\\233");
	check("\xc2\x80\xc2\x9f\xc2\xa0", 6, SHOWN_ESCAPE, "\\302\\200\\302\\237\xc2\xa0");
}

static void characters_with_such_bytes_stay(void **state)
{
	/* their second or third bytes are of 0x80 to 0x9f */
	static const char text[] = "\xc3\x84\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80 \xed\x9f\xbf";

	(void)state;
	check(text, sizeof(text) - 1, SHOWN_ESCAPE, text);
	check("\xff\xa0\xfe", 3, SHOWN_ESCAPE, "\xff\xa0\xfe"); /* no characters, and no controls */
}

static void what_is_no_utf8_hides_nothing(void **state)
{
	(void)state;
	check("\xe2\x82", 2, SHOWN_ESCAPE, "\xe2\\202");                   /* cut */
	check("\xc3\033[m", 4, SHOWN_ESCAPE, "\xc3\\033[m");               /* cut by a control */
	check("\xc0\x9b", 2, SHOWN_ESCAPE, "\xc0\\233");                   /* too long */
	check("\xe0\x82\x9b", 3, SHOWN_ESCAPE, "\xe0\\202\\233");          /* too long */
	check("\xf0\x80\x82\x9b", 4, SHOWN_ESCAPE, "\xf0\\200\\202\\233"); /* too long */
	check("\xed\xa0\x80", 3, SHOWN_ESCAPE, "\xed\xa0\\200");           /* a surrogate */
	check("\xf4\x90\x80\x80", 4, SHOWN_ESCAPE, "\xf4\\220\\200\\200"); /* beyond the last */
	check("\xf5\x9b\x9b\x9b", 4, SHOWN_ESCAPE, "\xf5\\233\\233\\233"); /* no lead */
}

static void backslashes_are_as_asked(void **state)
{
	(void)state;
	check("a\\b\n", 4, SHOWN_ESCAPE, "a\\134b\\012");
	check("a\\b\n", 4, SHOWN_KEEP, "a\\b\\012");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(controls_are_octal),
		cmocka_unit_test(c1_is_octal_alone_and_as_utf8),
		cmocka_unit_test(characters_with_such_bytes_stay),
		cmocka_unit_test(what_is_no_utf8_hides_nothing),
		cmocka_unit_test(backslashes_are_as_asked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
