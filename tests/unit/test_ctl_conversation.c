/* links: tests/unit/ctl_rig.c tests/unit/ctl_fakes_ops.c tests/unit/ctl_fakes_sandbox.c tests/unit/ctl_fakes_runs.c tests/unit/ctl_fakes_files.c ctl/ctl_fs.c ctl/list.c ctl/name_list.c ctl/tree.c ctl/pump.c ctl/stream.c ctl/text.c ctl/sized.c ctl/doc.c ctl/verbs.c ctl/talk.c ctl/upload.c ctl/runs.c ctl/run_files.c ctl/env.c ctl/sessions.c ctl/session_new.c ctl/session_files.c sandboxfs/session_api.c ctl/conversation.c ctl/exec.c ctl/exec_json.c ctl/log_event.c ctl/status.c sandboxfs/shown.c ctl/server.c ctl/sandbox_dir.c ctl/words.c sandboxfs/call.c sandboxfs/node.c sandboxfs/log.c contrib/common/buf.c contrib/common/spool.c */
/* exec as a conversation: lines and their runs, what a read tells and when, and what ends it. */
#include "ctl_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"

static void a_conversation_tells_number_output_end_and_the_next_number(void **state)
{
	(void)state;
	struct opened f = open_it("exec", O_RDWR);
	AUTO_FREE char *one = read_text(&f, 1, 0); /* as bash's read does */
	assert_string_equal(one, "1");
	assert_read(&f, "\n");
	assert_read(&f, "");
	assert_int_equal(write_text(&f, "echo"), 0);
	assert_int_equal(flush_as(&f, 0), 0);
	assert_int_equal(write_text(&f, " hello\n"), 0);
	struct run *r = fake_started(0);
	assert_int_equal(run_number(r), 1);
	assert_string_equal(run_command(r), "echo hello");
	fake_run_print(r, 1, "hello\n", 6);
	assert_read(&f, "hello\n");
	struct op *waits = read_as(&f, 4096, 0, 0);
	assert_true(fake_op_is_parked(waits));
	fake_run_end(r, 0, false);
	assert_true(fake_op_answered(waits));
	assert_int_equal(fake_op_err(waits), 0);
	fake_op_free(waits);
	assert_int_equal(fake_invalidations, 1);
	assert_file("runs/1/exit", "0\n");
	assert_read(&f, "2\n");
	assert_int_equal(write_text(&f, "true\n"), 0);
	assert_int_equal(run_number(fake_started(1)), 2);
	fake_run_end(fake_started(1), 0, false);
	assert_read(&f, "");
	release(&f);
}

static void output_comes_without_the_number_when_the_line_came_first(void **state)
{
	(void)state;
	struct opened f = open_it("exec", O_RDWR);
	assert_int_equal(write_text(&f, "cat x"), 0);
	struct op *first = read_as(&f, 100, 0, 0); /* ends the line */
	struct run *r = fake_started(0);
	assert_string_equal(run_command(r), "cat x");
	fake_run_print(r, 2, "no x\n", 5);
	assert_true(fake_op_answered(first));
	assert_string_equal(fake_op_data(first, NULL), "no x\n");
	fake_op_free(first);
	fake_run_end(r, 1, false);
	assert_read(&f, "");
	release(&f);
}

static void lines_wait_for_their_turn_and_are_told_in_order(void **state)
{
	(void)state;
	struct opened f = open_it("exec", O_RDWR);
	assert_int_equal(write_text(&f, "one\n# nothing\n\ntwo\nthree\n"), 0);
	struct run *r = run_get(fake_started(0));
	fake_run_print(r, 1, "1\n", 2);
	fake_run_end(r, 0, false);
	fake_start_err = 0;
	run_put(r);
	r = fake_started(1);
	assert_string_equal(run_command(r), "two");
	fake_start_err = -ENOENT; /* three's */
	fake_run_print(r, 1, "2\n", 2);
	fake_run_end(r, 0, false);
	assert_read(&f, "1\n");
	assert_read(&f, "");
	assert_read(&f, "2\n");
	assert_read(&f, "");
	assert_read(&f, "error ENOENT");
	assert_read(&f, "4\n");
	assert_file_holds("error", "exec: the command cannot be started");
	release(&f);
}

static void a_start_that_fails_is_the_writes_error(void **state)
{
	(void)state;
	struct opened f = open_it("exec", O_RDWR);
	fake_start_err = -ENOSPC;
	assert_int_equal(write_text(&f, "true\n"), -ENOSPC);
	assert_read(&f, "2\n");
	fake_barrier_err = -EIO;
	assert_int_equal(write_text(&f, "true\n"), -EIO);
	fake_barrier_err = 0;
	assert_int_equal(write_n(&f, "a\0b\n", 4), -EINVAL);
	release(&f);
}

static void an_end_within_a_line_is_told_twice_to_the_same_process(void **state)
{
	(void)state;
	struct opened f = open_it("exec", O_RDWR);
	assert_int_equal(write_text(&f, "printf x\n"), 0);
	struct run *r = fake_started(0);
	fake_run_print(r, 1, "x", 1);
	fake_run_end(r, 0, false);
	assert_read(&f, "x");
	assert_read(&f, "");
	assert_read(&f, "");
	assert_read(&f, "2\n");
	assert_int_equal(write_text(&f, "printf x\n"), 0);
	r = fake_started(1);
	fake_run_print(r, 1, "x", 1);
	fake_run_end(r, 0, false);
	assert_read(&f, "x");
	pid_t cat = child(0, false);
	struct op *end = read_as(&f, 10, 0, cat);
	assert_true(fake_op_answered(end));
	assert_string_equal(fake_op_data(end, NULL), "");
	fake_op_free(end);
	bury(cat);
	assert_read(&f, "3\n"); /* another process: the shell */
	release(&f);
}

static void a_read_that_waits_can_be_cancelled_and_loses_nothing(void **state)
{
	(void)state;
	struct opened f = open_it("exec", O_RDWR);
	assert_int_equal(write_text(&f, "cat\n"), 0);
	struct run *r = fake_started(0);
	struct op *a = read_as(&f, 10, 0, 0), *b = read_as(&f, 3, 0, 0), *c = read_as(&f, 10, 0, 0);
	fake_op_cancel(a);
	assert_true(fake_op_answered(a));
	assert_int_equal(fake_op_err(a), -EINTR);
	fake_run_print(r, 1, "abcdef", 6);
	assert_true(fake_op_answered(b));
	assert_true(fake_op_answered(c));
	assert_string_equal(fake_op_data(b, NULL), "abc");
	assert_string_equal(fake_op_data(c, NULL), "def");
	fake_op_free(a);
	fake_op_free(b);
	fake_op_free(c);
	fake_run_end(r, 0, false);
	release(&f);
}

static void a_nonblocking_reader_gets_eagain_and_poll_tells_once(void **state)
{
	(void)state;
	struct opened f = open_it("exec", O_RDWR | O_NONBLOCK);
	struct op *op = fake_op(0);
	unsigned events = 0;
	assert_int_equal(write_text(&f, "cat\n"), 0);
	struct run *r = fake_started(0);
	assert_read(&f, "error EAGAIN");
	int before = fake_poll_notified();
	assert_int_equal(f.node->ops->poll(f.node, op, f.o.file, fake_poll(), &events), 0);
	assert_int_equal(events, POLLOUT | POLLWRNORM);
	assert_int_equal(f.node->ops->poll(f.node, op, f.o.file, fake_poll(), &events), 0);
	assert_int_equal(fake_poll_alive(), 1); /* the newest */
	fake_run_print(r, 1, "x\n", 2);
	for (int i = 0; i < 5000 && fake_poll_notified() == before; i++)
		usleep(1000);
	assert_int_equal(fake_poll_notified(), before + 1);
	events = 0;
	assert_int_equal(f.node->ops->poll(f.node, op, f.o.file, NULL, &events), 0);
	assert_true(events & POLLIN);
	assert_read(&f, "x\n");
	assert_read(&f, "error EAGAIN");
	fake_run_end(r, 0, false);
	fake_op_free(op);
	release(&f);
}

static void the_last_close_cancels_what_runs(void **state)
{
	(void)state;
	struct opened f = open_it("exec", O_RDWR);
	assert_int_equal(write_text(&f, "sleep 1000\nnever\n"), 0);
	struct run *r = fake_started(0);
	release(&f);
	assert_true(fake_run_cancelled(r));
	fake_run_end(r, 143, false);
}

static void a_line_that_is_too_long_is_refused_and_the_next_is_taken(void **state)
{
	(void)state;
	struct opened f = open_it("exec", O_RDWR);
	AUTO_FREE char *mb = malloc(1 << 20);
	memset(mb, 'x', 1 << 20);
	assert_int_equal(write_n(&f, mb, 1 << 20), 0);
	assert_int_equal(write_text(&f, "x"), -EFBIG);
	assert_int_equal(write_text(&f, "more of it"), -EFBIG);
	assert_int_equal(write_text(&f, "end of it\n"), -EFBIG);
	assert_int_equal(write_text(&f, "true\n"), 0);
	assert_string_equal(run_command(fake_started(0)), "true");
	fake_run_end(fake_started(0), 0, false);
	assert_read(&f, "");
	release(&f);
}

static void two_conversations_do_not_see_each_other(void **state)
{
	(void)state;
	struct opened f = open_it("exec", O_RDWR), g = open_it("exec", O_RDWR);
	assert_int_equal(write_text(&f, "f\n"), 0);
	assert_int_equal(write_text(&g, "g\n"), 0);
	fake_run_print(fake_started(1), 1, "G\n", 2);
	fake_run_print(fake_started(0), 1, "F\n", 2);
	assert_read(&f, "F\n");
	assert_read(&g, "G\n");
	assert_file("exec", "G\n");
	assert_int_equal(write_whole("ctl", "cancel 1"), 0);
	assert_true(fake_run_cancelled(fake_started(0)));
	fake_run_end(fake_started(0), 0, false);
	fake_run_end(fake_started(1), 0, false);
	release(&f);
	release(&g);
}

static void lost_output_is_an_error_not_a_cut(void **state)
{
	(void)state;
	struct opened f = open_it("exec", O_RDWR);
	AUTO_FREE char *mb = malloc(1 << 20);
	memset(mb, 'y', 1 << 20);
	assert_int_equal(write_text(&f, "yes\n"), 0);
	struct run *r = fake_started(0);
	fake_run_print(r, 1, "first\n", 6);
	fake_run_print(r, 1, mb, 1 << 20);
	assert_read(&f, "error ENODATA");
	assert_file_holds("error", "exec: 6 bytes of the output of run 1 are no longer kept");
	AUTO_FREE char *rest = read_text(&f, 4, 0);
	assert_string_equal(rest, "yyyy");
	/* The reader is overtaken again and again: each error is followed by bytes. */
	fake_run_print(r, 1, mb, 1 << 20);
	AUTO_FREE char *more = read_text(&f, 128 << 10, 0);
	assert_true(strspn(more, "y") > 0 && strlen(more) == strspn(more, "y"));
	assert_read(&f, "error ENODATA");
	fake_run_print(r, 1, mb, 1 << 20);
	AUTO_FREE char *behind = read_text(&f, 4, 0);
	assert_string_equal(behind, "yyyy");
	assert_file("runs/1/stdout", "error ENODATA");
	assert_file_holds("error", "runs/1/stdout: bytes 0 to 2097157 are no longer kept");
	fake_run_end(r, 0, false);
	release(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_conversation_tells_number_output_end_and_the_next_number),
		TEST(output_comes_without_the_number_when_the_line_came_first),
		TEST(lines_wait_for_their_turn_and_are_told_in_order),
		TEST(a_start_that_fails_is_the_writes_error),
		TEST(an_end_within_a_line_is_told_twice_to_the_same_process),
		TEST(a_read_that_waits_can_be_cancelled_and_loses_nothing),
		TEST(a_nonblocking_reader_gets_eagain_and_poll_tells_once),
		TEST(the_last_close_cancels_what_runs),
		TEST(a_line_that_is_too_long_is_refused_and_the_next_is_taken),
		TEST(two_conversations_do_not_see_each_other),
		TEST(lost_output_is_an_error_not_a_cut),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
