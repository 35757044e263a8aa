/* links: tests/unit/ctl_rig.c tests/unit/ctl_fakes_ops.c tests/unit/ctl_fakes_sandbox.c tests/unit/ctl_fakes_runs.c tests/unit/ctl_fakes_files.c ctl/ctl_fs.c ctl/list.c ctl/name_list.c ctl/tree.c ctl/pump.c ctl/stream.c ctl/text.c ctl/sized.c ctl/doc.c ctl/verbs.c ctl/talk.c ctl/upload.c ctl/runs.c ctl/run_files.c ctl/env.c ctl/sessions.c ctl/session_new.c ctl/session_files.c sandboxfs/session_api.c ctl/conversation.c ctl/exec.c ctl/exec_json.c ctl/log_event.c ctl/status.c sandboxfs/shown.c ctl/server.c ctl/sandbox_dir.c ctl/words.c sandboxfs/call.c sandboxfs/node.c sandboxfs/log.c contrib/common/buf.c contrib/common/spool.c */
/* exec written as a document: when it is sent and when not, what is waited for, and whom an error meets. */
#include "ctl_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"

static void a_document_goes_out_once_when_its_opener_closes(void **state)
{
	(void)state;
	struct flushing w;
	struct opened f = open_it("exec", O_WRONLY | O_TRUNC);
	assert_int_equal(fake_readies, 1);
	assert_int_equal(flush_as(&f, 0), 0); /* the shell's spare descriptor */
	pid_t other = child(0, false);
	assert_int_equal(write_text(&f, "echo a\n"), 0);
	assert_file("last/exit", "");             /* counted from its first byte */
	assert_int_equal(flush_as(&f, other), 0); /* a child that inherited it */
	assert_int_equal(write_text(&f, "echo b\n"), 0);
	int barriers = fake_barriers;
	flush_begin(&w, &f);
	struct run *r = fake_started(0);
	assert_non_null(r);
	assert_string_equal(run_command(r), "echo a\necho b\n");
	assert_int_equal(fake_barriers, barriers + 1);
	assert_int_equal(fake_invalidations, 0);
	fake_run_print(r, 1, "a\nb\n", 4);
	fake_run_end(r, 3, false);
	assert_int_equal(flush_end(&w), 0);
	assert_int_equal(fake_invalidations, 1);
	assert_int_equal(flush_as(&f, 0), 0);
	release(&f);
	bury(other);
	assert_file("last/exit", "3\n");
	assert_file("runs/1/stdout", "a\nb\n");
	assert_file("last/cmd", "echo a\necho b\n");
	assert_file("exec", "a\nb\n");
}

/* What was begun and will not be started must not stay in the table for ever. */
static void assert_last_is_closed(void)
{
	struct run *r = fake_last_run();
	assert_non_null(r);
	assert_true(fake_run_over(r));
}

static struct opened open_by(pid_t pid, const char *text)
{
	struct opened f = open_as("exec", O_WRONLY | O_TRUNC, pid);
	assert_int_equal(write_text(&f, text), 0);
	return f;
}

static void *release_thread(void *arg)
{
	release(arg);
	return NULL;
}

static void who_exits_is_not_held_up_and_its_document_is_sent_by_release(void **state)
{
	(void)state;
	pthread_t thread;
	pid_t gone = child(0, true);
	struct opened f = open_by(gone, "make\n");
	assert_int_equal(flush_as(&f, gone), 0);
	assert_int_equal(pthread_create(&thread, NULL, release_thread, &f), 0);
	struct run *r = fake_started(0);
	assert_string_equal(run_command(r), "make\n");
	fake_run_end(r, 0, false);
	pthread_join(thread, NULL);
	bury(gone);
	assert_file("last/exit", "0\n");
}

static void of_a_writer_that_was_killed_nothing_is_sent(void **state)
{
	(void)state;
	pid_t killed = child(SIGINT, true);
	struct opened f = open_by(killed, "rm -rf /workspace/tmp /work");
	assert_int_equal(flush_as(&f, killed), -ECANCELED);
	release(&f);
	bury(killed);
	assert_file_holds("error", "exec: signal 2 killed the writer");
	assert_file("last/cmd", "");
	assert_file("last/exit", "unknown\n"); /* empty would say that it runs */
	assert_last_is_closed();
}

static void an_interrupt_cancels_the_command(void **state)
{
	(void)state;
	struct flushing w;
	struct opened f = open_it("exec", O_WRONLY);
	assert_int_equal(write_text(&f, "sleep 1000"), 0);
	flush_begin(&w, &f);
	struct run *r = run_get(fake_started(0));
	fake_op_cancel(w.op);
	assert_int_equal(flush_end(&w), -EINTR);
	assert_true(fake_run_cancelled(r));
	assert_int_equal(fake_invalidations, 0);
	assert_file("last/exit", "");
	assert_file("exec", ""); /* no late error of what the person did */
	fake_run_end(r, 143, false);
	release(&f);
	/* The end is waited for behind. */
	for (int i = 0; i < 5000 && !fake_invalidations; i++)
		usleep(1000);
	assert_int_equal(fake_invalidations, 1);
	run_put(r);
}

static void a_late_error_meets_the_next_reader_once(void **state)
{
	(void)state;
	struct opened f = open_it("exec", O_WRONLY), g;
	assert_int_equal(write_text(&f, "true\n"), 0);
	fake_barrier_err = -ENOSPC;
	assert_int_equal(flush_as(&f, 0), -ENOSPC);
	fake_barrier_err = 0;
	release(&f);
	assert_last_is_closed();
	assert_file("last/exit", "unknown\n");
	assert_file_holds("error", "message exec: workspace/f could not be sent");
	assert_int_equal(try_open("exec", O_RDONLY, 0, &g), -ENOSPC);
	assert_file("exec", "");
	assert_int_equal(fake_invalidations, 0);
}

static void the_error_of_a_start_is_the_opens(void **state)
{
	(void)state;
	struct opened f;
	fake_ready_err = -EHOSTUNREACH;
	assert_int_equal(try_open("exec", O_WRONLY, 0, &f), -EHOSTUNREACH);
	assert_file_holds("error", "message exec: still starting after 60 s");
	assert_file("exec", ""); /* reading asks nobody */
	fake_ready_err = 0;
}

static void an_unknown_end_never_reads_as_success(void **state)
{
	(void)state;
	struct flushing w;
	struct opened f = open_it("exec", O_WRONLY);
	assert_int_equal(write_text(&f, "make"), 0);
	flush_begin(&w, &f);
	fake_run_lose(fake_started(0), ESTALE);
	assert_int_equal(flush_end(&w), -ESTALE);
	release(&f);
	assert_file("last/exit", "unknown\n");
	assert_file_holds("error", "exec: the link broke while it ran");
}

static void of_a_document_that_is_too_long_nothing_is_sent(void **state)
{
	(void)state;
	struct opened f = open_it("exec", O_WRONLY);
	AUTO_FREE char *mb = calloc(1, 1 << 20);
	memset(mb, 'x', 1 << 20);
	for (int i = 0; i < 16; i++)
		assert_int_equal(write_n(&f, mb, 1 << 20), 0);
	assert_int_equal(write_text(&f, "x"), -EFBIG);
	assert_int_equal(write_text(&f, "x"), -EFBIG);
	assert_int_equal(flush_as(&f, 0), 0);
	assert_file_holds("error", "exec: longer than 16777216 bytes");
	assert_int_equal(write_n(&f, "a\0b", 3), 0);
	assert_int_equal(flush_as(&f, 0), -EINVAL);
	release(&f);
	assert_last_is_closed();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_document_goes_out_once_when_its_opener_closes),
		TEST(who_exits_is_not_held_up_and_its_document_is_sent_by_release),
		TEST(of_a_writer_that_was_killed_nothing_is_sent),
		TEST(an_interrupt_cancels_the_command),
		TEST(a_late_error_meets_the_next_reader_once),
		TEST(the_error_of_a_start_is_the_opens),
		TEST(an_unknown_end_never_reads_as_success),
		TEST(of_a_document_that_is_too_long_nothing_is_sent),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
