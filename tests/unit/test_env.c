/* links: contrib/common/buf.c sandboxfs/call.c ctl/words.c ctl/env.c */
/* Variables as control files have them: what is taken, what is refused without being repeated, and what is put over what. */
#include <errno.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cleanup.h"
#include "env.h"

/* A sandbox is a place for what is attached to it. */
struct sandbox {
	void *data;
	void (*release)(void *data);
};

void *sandbox_attach(struct sandbox *sb, const void *key, void *(*make)(struct sandbox *sb),
	void (*stop)(void *data), void (*release)(void *data))
{
	(void)key;
	(void)stop;
	if (!sb->data)
		sb->data = make(sb);
	sb->release = release;
	return sb->data;
}

static struct sandbox sandbox;
static const struct ctl_ref ref = {.sandbox = &sandbox, .path = "env"};

static int begin(void **state)
{
	(void)state;
	sandbox = (struct sandbox){0};
	return 0;
}

static int end(void **state)
{
	(void)state;
	if (sandbox.data)
		sandbox.release(sandbox.data);
	return 0;
}

/* Writes text to env (json: env.json). On failure its sentence is in the message, new, for the caller. */
static int put_size(bool json, const char *text, size_t n, char **message)
{
	struct call c;
	call_init(&c, 0);
	int err = json ? ctl_env_store_json(&ref, &c, text, n, false)
				   : ctl_env_store(&ref, &c, text, n, false);
	*message = strdup(c.fault.message ? c.fault.message : "");
	call_destroy(&c);
	return err;
}

static int put(bool json, const char *text)
{
	AUTO_FREE char *message = NULL;
	return put_size(json, text, strlen(text), &message);
}

static void assert_env(const char *lines, const char *json)
{
	AUTO_BUF out = BUF_INIT;
	AUTO_BUF out_json = BUF_INIT;
	assert_int_equal(ctl_env_show(&ref, NULL, &out), 0);
	assert_int_equal(ctl_env_show_json(&ref, NULL, &out_json), 0);
	assert_string_equal(out.data ? out.data : "", lines);
	assert_string_equal(out_json.data, json);
}

static void lines_add_change_and_take_away(void **state)
{
	(void)state;
	assert_env("", "{}\n");
	assert_int_equal(put(false, "A=1\n\n# B=no\nB=x y=z \r\n_C9="), 0);
	assert_env("A=1\nB=x y=z \n_C9=\n", "{\"A\":\"1\",\"B\":\"x y=z \",\"_C9\":\"\"}\n");
	assert_int_equal(put(false, "A\nNEVER\nB=2\n"), 0);
	assert_env("B=2\n_C9=\n", "{\"B\":\"2\",\"_C9\":\"\"}\n");
	assert_int_equal(put(false, "D=1\nD\nD=2\n"), 0);
	assert_env("B=2\n_C9=\nD=2\n", "{\"B\":\"2\",\"_C9\":\"\",\"D\":\"2\"}\n");
}

static void json_takes_newlines_and_null_unsets(void **state)
{
	(void)state;
	assert_int_equal(put(true, "{\"A\":\"one\\ntwo\",\"B\":\"/b\"}"), 0);
	assert_env(
		"# A is not shown: its value has newlines\nB=/b\n", "{\"A\":\"one\\ntwo\",\"B\":\"/b\"}\n");
	assert_int_equal(put(true, "{\"A\":null}\n"), 0);
	assert_env("B=/b\n", "{\"B\":\"/b\"}\n");
}

static void what_is_refused_changes_nothing_and_is_not_repeated(void **state)
{
	(void)state;
	static const struct {
		bool json;
		const char *text;
	} wrong[] = {
		{false, "A=2\n1X=secret\n"},
		{false, "A=2\nsecret/+==\n"},
		{false, "A=2\nsecret text\n"},
		{false, "=secret\n"},
		{false, "export A=secret\n"},
		{true, "{\"A\":\"2\",\"B\":[\"secret\"]}"},
		{true, "{\"A\":\"2\",\"secret-\":\"x\"}"},
		{true, "{\"A\":\"2\",\"B\":\"secret\\u0000\"}"},
		{true, "{\"A\":\"2\",\"B\":\"secret\""},
		{true, "[\"secret\"]"},
	};
	assert_int_equal(put(false, "A=1\n"), 0);
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		AUTO_FREE char *message = NULL;
		int err = put_size(wrong[i].json, wrong[i].text, strlen(wrong[i].text), &message);
		assert_int_equal(err, -EINVAL);
		assert_true(*message);
		assert_null(strstr(message, "secret"));
		assert_env("A=1\n", "{\"A\":\"1\"}\n");
	}
	AUTO_FREE char *message = NULL;
	assert_int_equal(put_size(false, "A=2\0B", 5, &message), -EINVAL);
	assert_env("A=1\n", "{\"A\":\"1\"}\n");
}

static void what_no_program_could_be_started_with_is_refused(void **state)
{
	(void)state;
	AUTO_BUF text = BUF_INIT;
	AUTO_FREE char *message = NULL;
	AUTO_FREE char *other = NULL;
	buf_str(&text, "A=");
	while (text.size < 131071)
		buf_char(&text, 'x');
	assert_int_equal(put_size(false, text.data, text.size, &message), 0);
	buf_char(&text, 'x');
	assert_int_equal(put_size(false, text.data, text.size, &other), -E2BIG);
}

static void a_request_stands_over_the_mount(void **state)
{
	(void)state;
	static const char *const own[] = {"B=own", "D=4", NULL};
	char **pairs;
	struct json_object *merged;
	assert_int_equal(ctl_env_pairs(&sandbox, NULL, &pairs), 0);
	assert_null(pairs);
	assert_int_equal(ctl_env_merge(&sandbox, NULL, &merged), 0);
	assert_null(merged);
	assert_int_equal(put(false, "A=1\nB=2\nC=3\n"), 0);

	assert_int_equal(ctl_env_pairs(&sandbox, own, &pairs), 0);
	assert_string_equal(pairs[1], "B=2");
	assert_string_equal(pairs[3], "B=own");
	assert_string_equal(pairs[4], "D=4");
	assert_null(pairs[5]);
	ctl_env_free_pairs(pairs);

	struct json_object *request = json_tokener_parse("{\"B\":\"own\",\"C\":null}");
	assert_int_equal(ctl_env_merge(&sandbox, request, &merged), 0);
	assert_string_equal(json_object_to_json_string_ext(merged, JSON_C_TO_STRING_PLAIN),
		"{\"A\":\"1\",\"B\":\"own\",\"C\":\"3\"}");
	json_object_put(merged);
	json_object_put(request);
	assert_env("A=1\nB=2\nC=3\n", "{\"A\":\"1\",\"B\":\"2\",\"C\":\"3\"}\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(lines_add_change_and_take_away, begin, end),
		cmocka_unit_test_setup_teardown(json_takes_newlines_and_null_unsets, begin, end),
		cmocka_unit_test_setup_teardown(
			what_is_refused_changes_nothing_and_is_not_repeated, begin, end),
		cmocka_unit_test_setup_teardown(
			what_no_program_could_be_started_with_is_refused, begin, end),
		cmocka_unit_test_setup_teardown(a_request_stands_over_the_mount, begin, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
