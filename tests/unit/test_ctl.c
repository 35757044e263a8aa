/* links: tests/unit/ctl_fakes.c tests/unit/ctl_fakes_files.c ctl/ctl_fs.c ctl/list.c ctl/name_list.c ctl/tree.c ctl/pump.c ctl/stream.c ctl/text.c ctl/sized.c ctl/doc.c ctl/verbs.c ctl/talk.c ctl/upload.c ctl/runs.c ctl/run_files.c ctl/env.c ctl/sessions.c ctl/session_new.c ctl/session_files.c sandboxfs/session_api.c ctl/conversation.c ctl/exec.c ctl/exec_json.c ctl/log_event.c ctl/status.c sandboxfs/shown.c ctl/server.c ctl/sandbox_dir.c ctl/words.c sandboxfs/call.c sandboxfs/node.c sandboxfs/log.c contrib/common/buf.c contrib/common/spool.c */
/* The control tree over doubles of the front, the sandbox and its runs: names, kinds, documents, conversations. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cleanup.h"
#include "ctl.h"
#include "ctl_fakes.h"

static struct fake_world world;
static struct node *top;

static int setup(void **state)
{
	(void)state;
	fake_world_make(&world);
	assert_int_equal(ctl_node_new(world.server, world.sandbox, &top), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	node_put(top);
	fake_world_free(&world);
	assert_int_equal(fake_poll_alive(), 0);
	return 0;
}

/* --- the kernel's part --- */

static int lookup(struct node *dir, const char *name, struct node_entry *e)
{
	struct op *op = fake_op(0);
	int err = dir->ops->lookup(dir, op, name, e);
	fake_op_free(op);
	return err;
}

/* A path below ctl/: new reference. */
static struct node *find(const char *path)
{
	struct node *at = node_get(top);
	AUTO_FREE char *copy = strdup(path);
	char *rest = copy, *name;
	while ((name = strsep(&rest, "/"))) {
		struct node_entry e;
		if (lookup(at, name, &e))
			fail_msg("%s: no %s", path, name);
		node_put(at);
		at = e.node;
		if (rest && S_ISLNK(e.attr.st_mode)) {
			AUTO_FREE char *text = NULL, *longer = NULL;
			struct op *op = fake_op(0);
			assert_int_equal(at->ops->readlink(at, op, &text), 0);
			fake_op_free(op);
			node_put(at);
			assert_true(asprintf(&longer, "%s/%s", text, rest) > 0);
			return find(longer);
		}
	}
	return at;
}

struct opened {
	struct node *node;
	struct node_open o;
};

static int try_open(const char *path, int flags, pid_t pid, struct opened *f)
{
	struct op *op = fake_op(pid);
	f->node = find(path);
	f->o = (struct node_open){.flags = flags};
	int err = f->node->ops->open(f->node, op, &f->o);
	if (err)
		node_put(f->node);
	fake_op_free(op);
	return err;
}

static struct opened open_as(const char *path, int flags, pid_t pid)
{
	struct opened f;
	assert_int_equal(try_open(path, flags, pid, &f), 0);
	return f;
}

static struct opened open_it(const char *path, int flags)
{
	return open_as(path, flags, 0);
}

static int write_n(struct opened *f, const void *p, size_t n)
{
	struct op *op = fake_op(0);
	size_t done = 0;
	int err = f->node->ops->write(f->node, op, f->o.file, p, n, 0, &done);
	if (!err)
		assert_int_equal(done, n);
	fake_op_free(op);
	return err;
}

static int write_text(struct opened *f, const char *text)
{
	return write_n(f, text, strlen(text));
}

static int flush_as(struct opened *f, pid_t pid)
{
	struct op *op = fake_op(pid);
	int err = f->node->ops->flush(f->node, op, f->o.file);
	fake_op_free(op);
	return err;
}

static void release(struct opened *f)
{
	struct op *op = fake_op(0);
	assert_int_equal(f->node->ops->release(f->node, op, f->o.file), 0);
	fake_op_free(op);
	node_put(f->node);
}

/* Sends a read: the op, which may be parked. An error of the handler is answered as the front does. */
static struct op *read_as(struct opened *f, size_t n, off_t off, pid_t pid)
{
	struct op *op = fake_op(pid);
	int err = f->node->ops->read(f->node, op, f->o.file, n, off);
	if (err != OP_REPLIED)
		op_reply_err(op, err);
	return op;
}

/* Waits for it; the text must be freed. */
static char *read_text(struct opened *f, size_t n, off_t off)
{
	struct op *op = read_as(f, n, off, 0);
	size_t got;
	assert_true(fake_op_answered(op));
	const char *p = fake_op_data(op, &got);
	char *copy = NULL;
	if (fake_op_err(op))
		assert_true(asprintf(&copy, "error %s", strerrorname_np(-fake_op_err(op))) > 0);
	else
		copy = strndup(p, got);
	fake_op_free(op);
	return copy;
}

static void assert_read(struct opened *f, const char *text)
{
	AUTO_FREE char *got = read_text(f, 1 << 16, 0);
	assert_string_equal(got, text);
}

static void assert_file(const char *path, const char *text)
{
	struct opened f = open_it(path, O_RDONLY);
	assert_read(&f, text);
	release(&f);
}

/* All that is there, or up to an error, which is told in words. */
static char *read_all(struct opened *f)
{
	AUTO_BUF all = BUF_INIT;
	for (;;) {
		AUTO_FREE char *part = read_text(f, 1 << 16, (off_t)all.size);
		buf_str(&all, part);
		if (!*part || strncmp(part, "error ", 6) == 0)
			return buf_steal(&all);
	}
}

static void assert_file_holds(const char *path, const char *part)
{
	struct opened f = open_it(path, O_RDONLY);
	AUTO_FREE char *got = read_all(&f);
	if (!strstr(got, part))
		fail_msg("%s: no \"%s\" in: %s", path, part, got);
	release(&f);
}

static int write_whole(const char *path, const char *text)
{
	struct opened f;
	int err = try_open(path, O_WRONLY | O_TRUNC, 0, &f);
	if (err)
		return err;
	err = write_text(&f, text);
	release(&f);
	return err;
}

/* --- work on threads: flushes that wait --- */

struct flushing {
	struct opened *f;
	struct op *op;
	pthread_t thread;
	int err;
};

static void *flush_thread(void *arg)
{
	struct flushing *w = arg;
	w->err = w->f->node->ops->flush(w->f->node, w->op, w->f->o.file);
	return NULL;
}

static void flush_begin(struct flushing *w, struct opened *f)
{
	w->f = f;
	w->op = fake_op(0);
	assert_int_equal(pthread_create(&w->thread, NULL, flush_thread, w), 0);
}

static int flush_end(struct flushing *w)
{
	pthread_join(w->thread, NULL);
	fake_op_free(w->op);
	return w->err;
}

/* A process that is there, or that has ended and not been waited for. */
static pid_t child(int signal, bool ended)
{
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nothing */
		if (signal)
			kill(getpid(), signal);
		while (!ended)
			pause();
		_exit(0);
	}
	assert_true(pid > 0);
	siginfo_t info;
	if (ended)
		assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	return pid;
}

static void bury(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* --- names --- */

static bool listed(struct node *dir, const char *name)
{
	struct op *op = fake_op(0);
	struct node_open o = {0};
	struct node_filler f = {.room = 256};
	bool found = false;
	assert_int_equal(dir->ops->opendir(dir, op, &o), 0);
	assert_int_equal(dir->ops->readdir(dir, op, o.file, 0, &f), 0);
	for (unsigned i = 0; i < f.count; i++)
		found = found || strcmp(f.names[i], name) == 0;
	assert_false(f.with_attributes);
	fake_filler_clear(&f);
	dir->ops->releasedir(dir, op, o.file);
	fake_op_free(op);
	return found;
}

static void listing_and_lookup_agree(void **state)
{
	(void)state;
	struct node_entry e;
	assert_true(listed(top, "exec"));
	assert_true(listed(top, "."));
	assert_true(listed(top, "help"));
	assert_false(listed(top, "last"));
	assert_int_equal(lookup(top, "last", &e), -ENOENT);
	assert_int_equal(lookup(top, "nosuch", &e), -ENOENT);
	assert_int_equal(lookup(top, "exec", &e), 0);
	assert_int_equal(e.attr.st_mode, S_IFREG | 0600);
	assert_int_equal(e.attr.st_uid, getuid());
	node_put(e.node);
}

static void a_listing_goes_on_where_it_stopped(void **state)
{
	(void)state;
	struct op *op = fake_op(0);
	struct node_open o = {0};
	unsigned total = 0;
	assert_int_equal(top->ops->opendir(top, op, &o), 0);
	for (;;) {
		struct node_filler f = {.room = 2};
		assert_int_equal(top->ops->readdir(top, op, o.file, total, &f), 0);
		total += f.count;
		fake_filler_clear(&f);
		if (f.room != 2 || total > 100)
			fail();
		struct node_filler probe = {.room = 2};
		assert_int_equal(top->ops->readdir(top, op, o.file, total, &probe), 0);
		bool end = probe.count == 0;
		fake_filler_clear(&probe);
		if (end)
			break;
	}
	unsigned rows = 0;
	for (const struct ctl_row *row = ctl_sandbox_dir.rows; row->name; row++)
		rows += !row->unlisted && strcmp(row->name, "last") != 0; /* there was no run yet */
	assert_int_equal(total, rows + 3);                            /* . .. help */
	top->ops->releasedir(top, op, o.file);
	fake_op_free(op);
}

static void request_files_get_a_node_for_each_lookup_directories_stay(void **state)
{
	(void)state;
	struct node_entry a, b;
	assert_int_equal(lookup(top, "exec", &a), 0);
	assert_int_equal(lookup(top, "exec", &b), 0);
	assert_ptr_not_equal(a.node, b.node);
	assert_int_equal(a.attr.st_ino, b.attr.st_ino);
	assert_true(a.entry_timeout == 0);
	node_put(a.node);
	node_put(b.node);
	assert_int_equal(lookup(top, "runs", &a), 0);
	assert_int_equal(lookup(top, "runs", &b), 0);
	assert_ptr_equal(a.node, b.node);
	node_put(a.node);
	node_put(b.node);
}

static void help_answers_in_every_directory(void **state)
{
	(void)state;
	assert_file_holds("help", "exec.json");
	assert_file_holds("help", "discard PATH|all");
	assert_file_holds("runs/help", "NAME/stdout");
	assert_file_holds("ports/help", "ports");
}

static int create(const char *name, int flags)
{
	struct op *op = fake_op(0);
	struct node_entry e;
	struct node_open o = {.flags = flags};
	int err = top->ops->create(top, op, name, 0644, &e, &o);
	if (!err) {
		e.node->ops->release(e.node, op, o.file);
		node_put(e.node);
	}
	fake_op_free(op);
	return err;
}

static void no_name_can_be_made_where_the_tables_have_none(void **state)
{
	(void)state;
	struct node_entry e;
	struct op *op = fake_op(0);
	assert_int_equal(create(".exec.swp", O_WRONLY), -EACCES);
	assert_int_equal(create("exec~", O_WRONLY), -EACCES);
	assert_file("error", ""); /* editors are no news */
	assert_int_equal(create("foo", O_WRONLY), -EACCES);
	assert_file_holds("error", "foo: no file can be made here");
	assert_int_equal(create("exec", O_WRONLY | O_EXCL), -EEXIST);
	assert_int_equal(create("exec", O_WRONLY), 0);
	assert_int_equal(top->ops->mkdir(top, op, "d", 0755, &e), -EACCES);
	assert_int_equal(top->ops->mkdir(top, op, "runs", 0755, &e), -EEXIST);
	assert_int_equal(top->ops->unlink(top, op, "exec"), -EPERM);
	assert_int_equal(top->ops->rmdir(top, op, "runs"), -EPERM);
	assert_int_equal(top->ops->rename(top, op, "a", top, "b", 0), -EACCES);
	fake_op_free(op);
}

static void modes_hold_for_root_too(void **state)
{
	(void)state;
	struct opened f;
	assert_int_equal(try_open("status", O_WRONLY, 0, &f), -EACCES);
	assert_int_equal(try_open("status", O_RDWR, 0, &f), -EACCES);
	assert_file_holds("error", "status: it can only be read");
}

static void chmod_truncate_and_touch_do_nothing_and_succeed(void **state)
{
	(void)state;
	struct node *n = find("exec");
	struct stat in = {.st_uid = getuid(), .st_mode = 0777}, out;
	struct op *op = fake_op(0);
	double timeout;
	int valid = NODE_SET_MODE | NODE_SET_SIZE | NODE_SET_ATIME | NODE_SET_MTIME | NODE_SET_UID;
	assert_int_equal(n->ops->setattr(n, op, NULL, &in, valid, &out, &timeout), 0);
	assert_int_equal(out.st_mode, S_IFREG | 0600);
	in.st_uid = getuid() + 1;
	assert_int_equal(n->ops->setattr(n, op, NULL, &in, NODE_SET_UID, &out, &timeout), -EPERM);
	fake_op_free(op);
	node_put(n);
}

/* --- texts and verbs --- */

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
	server_last_fault(world.server, &fault);
	assert_int_equal(fault.err, EBUSY);
	fault_clear(&fault);
	assert_int_equal(write_whole("ctl", "destroy force"), 0);
	assert_int_equal(fake_destroys, 1);
	assert_file("sync", "failed ENOSPC f: disk full\n");
}

static void the_server_has_a_tree_of_its_own(void **state)
{
	(void)state;
	struct node *sandbox = top;
	assert_int_equal(ctl_node_new(world.server, NULL, &top), 0);
	assert_file_holds("server", "kind local\ncan create\n");
	assert_file("stats", "requests 1\n");
	assert_int_equal(write_whole("ctl", "log debug\n"), 0);
	assert_file("ctl", "log debug\n");
	assert_int_equal(write_whole("ctl", "log loud\n"), -EINVAL);
	assert_file_holds("error", "ctl: log loud");
	assert_int_equal(write_whole("ctl", "log info\ndrop-caches\n"), 0);
	node_put(top);
	top = sandbox;
}

/* --- documents --- */

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

struct releasing {
	struct opened *f;
	pthread_t thread;
};

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

/* --- conversations --- */

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

/* --- exec.json --- */

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

/* --- runs --- */

static void runs_are_directories_and_sizes_are_true(void **state)
{
	(void)state;
	struct node_entry e;
	struct opened f = open_it("exec", O_RDWR);
	assert_int_equal(write_text(&f, "x\n"), 0);
	struct run *r = fake_started(0);
	fake_run_print(r, 1, "out", 3);
	fake_run_print(r, 2, "err!", 4);
	struct node *dir = find("runs/1");
	assert_true(listed(dir, "help"));
	assert_int_equal(lookup(dir, "stdout", &e), 0);
	assert_int_equal(e.attr.st_size, 3);
	assert_true(e.attr_timeout == 0);
	node_put(e.node);
	assert_int_equal(lookup(dir, "logs", &e), 0);
	assert_int_equal(e.attr.st_size, 7);
	node_put(e.node);
	node_put(dir);
	struct node *runs = find("runs");
	assert_true(listed(runs, "1"));
	assert_int_equal(lookup(runs, "01", &e), -ENOENT);
	assert_int_equal(lookup(runs, "2", &e), -ENOENT);
	assert_int_equal(lookup(runs, "x", &e), -ENOENT);
	node_put(runs);
	assert_file("runs/1/exit", "");
	assert_file("runs/1/duration", "");
	assert_file("runs/1/logs", "outerr!");
	fake_run_end(r, 7, false);
	assert_read(&f, "outerr!");
	assert_read(&f, "");
	assert_file("runs/1/exit", "7\n");
	assert_file_holds("runs/1/duration", "0.0");
	assert_file_holds("runs/1/started", "Z\n");
	struct node *last = find("last");
	AUTO_FREE char *text = NULL;
	struct op *op = fake_op(0);
	assert_int_equal(last->ops->readlink(last, op, &text), 0);
	assert_string_equal(text, "runs/1");
	fake_op_free(op);
	node_put(last);
	release(&f);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(listing_and_lookup_agree),
		TEST(a_listing_goes_on_where_it_stopped),
		TEST(request_files_get_a_node_for_each_lookup_directories_stay),
		TEST(help_answers_in_every_directory),
		TEST(no_name_can_be_made_where_the_tables_have_none),
		TEST(modes_hold_for_root_too),
		TEST(chmod_truncate_and_touch_do_nothing_and_succeed),
		TEST(a_text_reads_the_same_in_pieces_of_any_size),
		TEST(verbs_are_checked_and_the_error_repeats_the_line),
		TEST(settings_can_be_written_back),
		TEST(destroy_with_unsent_writes_is_busy_unless_forced),
		TEST(the_server_has_a_tree_of_its_own),
		TEST(a_document_goes_out_once_when_its_opener_closes),
		TEST(who_exits_is_not_held_up_and_its_document_is_sent_by_release),
		TEST(of_a_writer_that_was_killed_nothing_is_sent),
		TEST(an_interrupt_cancels_the_command),
		TEST(a_late_error_meets_the_next_reader_once),
		TEST(the_error_of_a_start_is_the_opens),
		TEST(an_unknown_end_never_reads_as_success),
		TEST(of_a_document_that_is_too_long_nothing_is_sent),
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
		TEST(exec_json_takes_all_options_and_tells_events),
		TEST(exec_json_says_what_is_wrong_with_a_request),
		TEST(exec_json_takes_a_document_and_tells_a_lost_end_as_error),
		TEST(runs_are_directories_and_sizes_are_true),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
