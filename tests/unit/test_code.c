/* links: sandboxfs/code.c sandboxfs/code_show.c sandboxfs/call.c contrib/common/buf.c contrib/common/spool.c */
/* What is kept of a run of code: its events, whatever a server may send, and the JSON made of them. */
#include <errno.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "code_impl.h"
#include "run.h"

/* --- what the room stands on --- */

static const struct options test_options = {.output_max = 1 << 20};

const struct options *sandbox_options(struct sandbox *sb)
{
	(void)sb;
	return &test_options;
}

char *run_spool_dir(void)
{
	return strdup("/tmp");
}

/* --- helpers --- */

static int take(struct code_run *r, const char *text)
{
	struct json_object *o = json_tokener_parse(text);
	int err = code_run_take(r, o);
	json_object_put(o);
	return err;
}

static struct code_run *run_new_or_fail(void)
{
	struct code_run *r;
	assert_int_equal(code_run_new(NULL, &r), 0);
	return r;
}

static void assert_file(
	struct code_run *r, size_t i, unsigned number, const char *ext, const char *text)
{
	char got[64] = "";
	const struct code_file *f = code_run_file(r, i);
	assert_non_null(f);
	assert_int_equal(f->number, number);
	assert_string_equal(f->ext, ext);
	assert_int_equal(f->size, strlen(text));
	assert_int_equal(code_file_read(f, got, sizeof got - 1, 0), strlen(text));
	assert_string_equal(got, text);
	assert_int_equal(code_file_read(f, got, sizeof got, f->size), 0);
}

/* --- the tests --- */

static void test_displays_are_files(void **state)
{
	(void)state;
	struct code_run *r = run_new_or_fail();
	assert_int_equal(take(r, "{\"type\":\"stdout\",\"text\":\"a\"}"), 0);
	assert_int_equal(
		take(r,
			"{\"type\":\"result\",\"png\":\"iVBORw==\",\"text\":\"fig\",\"json\":null,\"odd\":1}"),
		0);
	assert_int_equal(take(r, "{\"type\":\"stderr\",\"text\":\"b\"}"), 0);
	assert_int_equal(take(r, "{\"type\":\"result\",\"json\":{\"a\":[1,\"/\"]}}"), 0);
	assert_int_equal(take(r, "{\"type\":\"execution_complete\",\"execution_count\":4}"), 1);
	assert_int_equal(code_run_files(r), 4);
	assert_file(r, 0, 0, "txt", "fig");
	assert_file(r, 1, 0, "png", "\x89PNG");
	assert_file(r, 2, 0, "json", "null");
	assert_file(r, 3, 1, "json", "{\"a\":[1,\"/\"]}");
	struct buf out = BUF_INIT;
	assert_int_equal(code_run_put_json(r, &out), 0);
	assert_string_equal(out.data,
		"{\"outputs\":[{\"type\":\"stdout\",\"content\":\"a\"},{\"type\":\"text\",\"content\":"
		"\"fig\"},"
		"{\"type\":\"png\",\"content\":\"iVBORw==\"},{\"type\":\"json\",\"content\":null},"
		"{\"type\":\"stderr\",\"content\":\"b\"},{\"type\":\"json\",\"content\":{\"a\":[1,\"/"
		"\"]}}],"
		"\"error\":null,\"results\":[{\"text\":\"fig\",\"png\":\"iVBORw==\",\"json\":null},"
		"{\"json\":{\"a\":[1,\"/\"]}}],\"logs\":{\"stdout\":[\"a\"],\"stderr\":[\"b\"]},"
		"\"executionCount\":4}\n");
	buf_release(&out);
	code_run_put(r);
}

static void test_errors_have_no_colours(void **state)
{
	(void)state;
	struct code_run *r = run_new_or_fail();
	struct buf out = BUF_INIT;
	assert_int_equal(
		take(r, "{\"type\":\"error\",\"ename\":\"\\u001b[0;31mE\\u001b[0m\",\"evalue\":\"v\","
				"\"traceback\":[\"one\\n\",\"\\u001b[1mtwo\\u001b[\",7]}"),
		1);
	code_run_put_error(r, &out);
	assert_int_equal(out.size, 0); /* it is not over */
	code_run_settle(r, 0, NULL);
	code_run_put_error(r, &out);
	assert_string_equal(out.data, "E: v\none\ntwo\n");
	buf_release(&out);
	code_run_put(r);
}

static void test_an_error_without_anything_is_one(void **state)
{
	(void)state;
	struct code_run *r = run_new_or_fail();
	struct buf out = BUF_INIT;
	assert_int_equal(take(r, "{\"type\":\"error\"}"), 1);
	assert_int_equal(take(r, "{\"type\":\"error\",\"ename\":\"again\"}"), -EPROTO);
	code_run_settle(r, 0, NULL);
	code_run_put_error(r, &out);
	assert_string_equal(out.data, "Error: \n");
	assert_int_equal(code_run_put_json(r, &out), 0);
	assert_non_null(
		strstr(out.data, "\"error\":{\"name\":\"Error\",\"message\":\"\",\"traceback\":[]}"));
	buf_release(&out);
	code_run_put(r);
}

static void test_what_makes_no_sense_is_refused(void **state)
{
	static const char *const bad[] = {"[]", "7", "null", "{}", "{\"type\":7}",
		"{\"type\":\"stdout\"}", "{\"type\":\"stderr\",\"text\":[]}"};
	(void)state;
	struct code_run *r = run_new_or_fail();
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(take(r, bad[i]), -EPROTO);
	assert_int_equal(take(r, "{\"type\":\"something new\"}"), 0);
	/* a picture that is none leaves its other forms */
	assert_int_equal(
		take(r, "{\"type\":\"result\",\"png\":\"!\",\"jpeg\":[],\"html\":\"<b>\"}"), 0);
	assert_int_equal(code_run_files(r), 1);
	assert_file(r, 0, 0, "html", "<b>");
	code_run_put(r);
}

static void test_displays_beyond_the_limit_are_left_out(void **state)
{
	(void)state;
	struct code_run *r = run_new_or_fail();
	size_t n = 700 << 10;
	char *long_text = malloc(n + 1);
	assert_non_null(long_text);
	memset(long_text, 'x', n);
	long_text[n] = 0;
	for (int i = 0; i < 2; i++) {
		struct json_object *o = json_object_new_object();
		json_object_object_add(o, "type", json_object_new_string("result"));
		json_object_object_add(o, "html", json_object_new_string(long_text));
		json_object_object_add(o, "text", json_object_new_string("t"));
		assert_int_equal(code_run_take(r, o), 0);
		json_object_put(o);
	}
	free(long_text);
	assert_int_equal(code_run_files(r), 3);
	assert_file(r, 2, 1, "txt", "t");
	code_run_put(r);
}

static void test_the_end_is_told_with_its_fault(void **state)
{
	(void)state;
	struct code_run *r = run_new_or_fail();
	struct call c;
	call_init(&c, 0);
	call_cancel(&c);
	assert_int_equal(code_run_wait(r, &c), -EINTR);
	call_destroy(&c);
	call_init(&c, 0);
	char words[] = "it died";
	struct fault f = {.err = EIO, .message = words};
	code_run_settle(r, -EIO, &f);
	assert_int_equal(code_run_wait(r, &c), -EIO);
	assert_string_equal(c.fault.message, "it died");
	assert_true(spool_ended(code_run_said(r)));
	call_destroy(&c);
	code_run_put(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_displays_are_files),
		cmocka_unit_test(test_errors_have_no_colours),
		cmocka_unit_test(test_an_error_without_anything_is_one),
		cmocka_unit_test(test_what_makes_no_sense_is_refused),
		cmocka_unit_test(test_displays_beyond_the_limit_are_left_out),
		cmocka_unit_test(test_the_end_is_told_with_its_fault),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
