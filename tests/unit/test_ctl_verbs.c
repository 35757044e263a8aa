/* links: tests/unit/ctl_rig.c tests/unit/ctl_fakes_ops.c tests/unit/ctl_fakes_sandbox.c tests/unit/ctl_fakes_runs.c tests/unit/ctl_fakes_files.c ctl/ctl_fs.c ctl/list.c ctl/name_list.c ctl/tree.c ctl/pump.c ctl/stream.c ctl/text.c ctl/sized.c ctl/doc.c ctl/verbs.c ctl/talk.c ctl/upload.c ctl/runs.c ctl/run_files.c ctl/env.c ctl/sessions.c ctl/session_new.c ctl/session_files.c sandboxfs/session_api.c ctl/conversation.c ctl/exec.c ctl/exec_json.c ctl/log_event.c ctl/status.c sandboxfs/shown.c ctl/server.c ctl/sandbox_dir.c ctl/words.c sandboxfs/call.c sandboxfs/node.c sandboxfs/log.c contrib/common/buf.c contrib/common/spool.c */
/* Files of the control tree that are text when they are read and lines of verbs when they are written. */
#include "ctl_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"

static void a_text_reads_the_same_in_pieces_of_any_size(void **state)
{
	(void)state;
	struct opened f = open_it("status", O_RDONLY);
	AUTO_FREE char *whole = read_text(&f, 4096, 0);
	assert_true(strncmp(whole, "running\n", 8) == 0);
	assert_non_null(strstr(whole, "\nboot abc\n"));
	for (size_t i = 0; i < strlen(whole); i++) {
		AUTO_FREE char *one = read_text(&f, 1, (off_t)i);
		assert_int_equal(one[0], whole[i]);
	}
	AUTO_FREE char *end = read_text(&f, 10, (off_t)strlen(whole));
	assert_string_equal(end, "");
	release(&f);
}

static void verbs_are_checked_and_the_error_repeats_the_line(void **state)
{
	(void)state;
	assert_int_equal(write_whole("ctl", "frobnicate now\n"), -EINVAL);
	assert_file_holds(
		"error", "message ctl: not understood: frobnicate now; write one of: destroy");
	assert_file_holds("error", "\noperation write\n");
	assert_file_holds("error", "errno EINVAL\n");
	assert_int_equal(write_whole("ctl", "destroy force of nature\n"), -EINVAL);
	assert_file_holds("error", "too many words: destroy force of nature");
	assert_int_equal(write_whole("ctl", "discard"), -EINVAL);
	assert_int_equal(write_whole("ctl", "\n# flush\n   \n"), 0);
	assert_int_equal(fake_barriers, 0);
	assert_int_equal(write_whole("ctl", "flush"), 0);
	assert_int_equal(fake_barriers, 1);
	assert_int_equal(write_whole("ctl", "retry 'a b'\nflush\n"), 0);
	assert_int_equal(fake_retries, 1);
	assert_int_equal(fake_barriers, 2);
	assert_int_equal(write_whole("ctl", "keepalive off\n"), -ENOTSUP);
	assert_file_holds("error", "do not sleep");
	assert_int_equal(write_whole("ctl", "cancel 99"), -ESRCH);
	assert_int_equal(write_whole("ctl", "kill-all"), 0);
	assert_string_equal(fake_api_last, "DELETE /api/process/kill-all");
}

static void settings_can_be_written_back(void **state)
{
	(void)state;
	struct opened f = open_it("ctl", O_RDONLY);
	AUTO_FREE char *text = read_text(&f, 4096, 0);
	release(&f);
	assert_true(strlen(text) > 0);
	assert_int_equal(write_whole("ctl", text), 0);
}

static void destroy_with_unsent_writes_is_busy_unless_forced(void **state)
{
	(void)state;
	snprintf(fake_sync, sizeof fake_sync, "failed ENOSPC f: disk full\n");
	assert_int_equal(write_whole("ctl", "destroy"), -EBUSY);
	assert_int_equal(fake_destroys, 0);
	struct fault fault = {0};
	server_last_fault(rig.world.server, &fault);
	assert_int_equal(fault.err, EBUSY);
	fault_clear(&fault);
	assert_int_equal(write_whole("ctl", "destroy force"), 0);
	assert_int_equal(fake_destroys, 1);
	assert_file("sync", "failed ENOSPC f: disk full\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_text_reads_the_same_in_pieces_of_any_size),
		TEST(verbs_are_checked_and_the_error_repeats_the_line),
		TEST(settings_can_be_written_back),
		TEST(destroy_with_unsent_writes_is_busy_unless_forced),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
