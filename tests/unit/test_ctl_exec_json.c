/* links: tests/unit/ctl_rig.c tests/unit/ctl_fakes_ops.c tests/unit/ctl_fakes_sandbox.c tests/unit/ctl_fakes_runs.c tests/unit/ctl_fakes_files.c ctl/ctl_fs.c ctl/list.c ctl/name_list.c ctl/tree.c ctl/pump.c ctl/stream.c ctl/text.c ctl/sized.c ctl/doc.c ctl/verbs.c ctl/talk.c ctl/upload.c ctl/runs.c ctl/run_files.c ctl/env.c ctl/sessions.c ctl/session_new.c ctl/session_files.c sandboxfs/session_api.c ctl/conversation.c ctl/exec.c ctl/exec_json.c ctl/log_event.c ctl/status.c sandboxfs/shown.c ctl/server.c ctl/sandbox_dir.c ctl/words.c sandboxfs/call.c sandboxfs/node.c sandboxfs/log.c contrib/common/buf.c contrib/common/spool.c */
/* exec.json: what a request may hold, and the events that a run is told by. */
#include "ctl_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "cleanup.h"

static void exec_json_takes_all_options_and_tells_events(void **state)
{
	(void)state;
	struct opened f = open_it("exec.json", O_RDWR);
	size_t n;
	assert_read(&f, "");
	assert_int_equal(
		write_text(&f, "{\"command\":\"cat\",\"cwd\":\"sub\",\"env\":{\"A\":\"b c\",\"N\":null},"
					   "\"timeout\":1500,\"stdinBase64\":\"AGEnIv8=\"}\n"),
		0);
	struct run *r = run_get(fake_started(0));
	assert_string_equal(run_command(r), "cat");
	assert_string_equal(fake_run_cwd(r), "/workspace/sub");
	assert_string_equal(fake_run_env(r, 0), "A=b c");
	assert_null(fake_run_env(r, 1));
	assert_int_equal(fake_run_timeout_ms(r), 1500);
	const void *input = fake_run_input(r, &n);
	assert_int_equal(n, 5);
	assert_memory_equal(input, "\0a'\"\xff", 5);
	fake_run_print(r, 1, "\xe2\x82", 2);
	fake_run_print(r, 2, "err\n", 4);
	fake_run_print(r, 1, "\xac\n", 2);
	fake_run_print(r, 1, "a\xff", 2);
	fake_run_end(r, 124, true);
	AUTO_FREE char *events = read_all(&f);
	const char *start =
		strstr(events, "{\"type\":\"start\",\"command\":\"cat\",\"run\":1,\"timestamp\":\"20");
	const char *err = strstr(events, "{\"type\":\"stderr\",\"data\":\"err\\n\"");
	const char *bad =
		strstr(events, "\"data\":\"\xe2\x82\xac\\na\xef\xbf\xbd\",\"dataBase64\":\"4oKsCmH/\"");
	const char *late = strstr(events, "\"type\":\"error\",\"code\":\"TIMEOUT\"");
	const char *exit = strstr(events, "\"type\":\"exit\",\"exitCode\":124");
	if (!(start == events && err && bad && late && exit && late < exit))
		fail_msg("%s", events);
	assert_null(strstr(events, "processId"));
	/* The same again for who only reads, and nothing of it in the other conversation. */
	struct opened g = open_it("exec.json", O_RDONLY);
	AUTO_FREE char *again = read_all(&g);
	assert_non_null(strstr(again, "\"exitCode\":124"));
	release(&g);
	release(&f);
	run_put(r);
}

static void exec_json_says_what_is_wrong_with_a_request(void **state)
{
	(void)state;
	static const struct {
		const char *line;
		int err;
		const char *says;
	} wrong[] = {
		{"{\"command\":\"x\"\n", -EINVAL, "exec.json: JSON ends at byte 14"},
		{"make test\n", -EINVAL, "no JSON object begins"},
		{"{\"commnd\":\"x\"}\n", -EINVAL, "unknown key"},
		{"{}\n", -EINVAL, "\"command\" is missing"},
		{"{\"command\":7}\n", -EINVAL, "is to be a string"},
		{"{\"command\":\"a\\u0000b\"}\n", -EINVAL, "NUL"},
		{"{\"command\":\"x\",\"env\":{\"A=B\":\"c\"}}\n", -EINVAL, "cannot be a name"},
		{"{\"command\":\"x\",\"timeout\":-1}\n", -EINVAL, "milliseconds"},
		{"{\"command\":\"x\",\"stdin\":\"a\",\"stdinBase64\":\"YQ==\"}\n", -EINVAL, "one of them"},
		{"{\"command\":\"x\",\"stdinBase64\":\"Y=Q=\"}\n", -EINVAL, "not base64"},
		{"{\"command\":\"x\",\"sessionId\":\" \"}\n", -EINVAL, "blank"},
	};
	struct opened f = open_it("exec.json", O_RDWR);
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		assert_int_equal(write_text(&f, wrong[i].line), wrong[i].err);
		assert_file_holds("error", wrong[i].says);
	}
	assert_read(&f, "");
	release(&f);
}

static void exec_json_takes_a_document_and_tells_a_lost_end_as_error(void **state)
{
	(void)state;
	struct flushing w;
	struct opened f = open_it("exec.json", O_WRONLY);
	assert_int_equal(write_text(&f, "{\n\"command\":\n"), 0);
	assert_int_equal(write_text(&f, "\"make\", \"stdin\": \"a\\u0000\"}\n"), 0);
	flush_begin(&w, &f);
	struct run *r = fake_started(0);
	size_t n;
	fake_run_input(r, &n);
	assert_int_equal(n, 2);
	fake_run_lose(r, ECONNRESET);
	assert_int_equal(flush_end(&w), -ECONNRESET);
	release(&f);
	struct opened g;
	assert_int_equal(try_open("exec.json", O_RDONLY, 0, &g), -ECONNRESET);
	assert_file_holds("exec.json", "\"type\":\"error\",\"data\":\"the link broke while it ran\"");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(exec_json_takes_all_options_and_tells_events),
		TEST(exec_json_says_what_is_wrong_with_a_request),
		TEST(exec_json_takes_a_document_and_tells_a_lost_end_as_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
