/*
 * The rig of ctl_rig.h. Owns the world and the tree of the test that runs; all else is the test's.
 */
#include "ctl_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"

struct ctl_rig rig;

int rig_setup(void **state)
{
	(void)state;
	fake_world_make(&rig.world);
	assert_int_equal(ctl_node_new(rig.world.server, rig.world.sandbox, &rig.top), 0);
	return 0;
}

int rig_teardown(void **state)
{
	(void)state;
	node_put(rig.top);
	fake_world_free(&rig.world);
	assert_int_equal(fake_poll_alive(), 0);
	return 0;
}

/* --- the kernel's part --- */

int lookup(struct node *dir, const char *name, struct node_entry *e)
{
	struct op *op = fake_op(0);
	int err = dir->ops->lookup(dir, op, name, e);
	fake_op_free(op);
	return err;
}

struct node *find(const char *path)
{
	struct node *at = node_get(rig.top);
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

int try_open(const char *path, int flags, pid_t pid, struct opened *f)
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

struct opened open_as(const char *path, int flags, pid_t pid)
{
	struct opened f;
	assert_int_equal(try_open(path, flags, pid, &f), 0);
	return f;
}

struct opened open_it(const char *path, int flags)
{
	return open_as(path, flags, 0);
}

int write_n(struct opened *f, const void *p, size_t n)
{
	struct op *op = fake_op(0);
	size_t done = 0;
	int err = f->node->ops->write(f->node, op, f->o.file, p, n, 0, &done);
	if (!err)
		assert_int_equal(done, n);
	fake_op_free(op);
	return err;
}

int write_text(struct opened *f, const char *text)
{
	return write_n(f, text, strlen(text));
}

int flush_as(struct opened *f, pid_t pid)
{
	struct op *op = fake_op(pid);
	int err = f->node->ops->flush(f->node, op, f->o.file);
	fake_op_free(op);
	return err;
}

void release(struct opened *f)
{
	struct op *op = fake_op(0);
	assert_int_equal(f->node->ops->release(f->node, op, f->o.file), 0);
	fake_op_free(op);
	node_put(f->node);
}

struct op *read_as(struct opened *f, size_t n, off_t off, pid_t pid)
{
	struct op *op = fake_op(pid);
	int err = f->node->ops->read(f->node, op, f->o.file, n, off);
	if (err != OP_REPLIED)
		op_reply_err(op, err);
	return op;
}

char *read_text(struct opened *f, size_t n, off_t off)
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

void assert_read(struct opened *f, const char *text)
{
	AUTO_FREE char *got = read_text(f, 1 << 16, 0);
	assert_string_equal(got, text);
}

void assert_file(const char *path, const char *text)
{
	struct opened f = open_it(path, O_RDONLY);
	assert_read(&f, text);
	release(&f);
}

char *read_all(struct opened *f)
{
	AUTO_BUF all = BUF_INIT;
	for (;;) {
		AUTO_FREE char *part = read_text(f, 1 << 16, (off_t)all.size);
		buf_str(&all, part);
		if (!*part || strncmp(part, "error ", 6) == 0)
			return buf_steal(&all);
	}
}

void assert_file_holds(const char *path, const char *part)
{
	struct opened f = open_it(path, O_RDONLY);
	AUTO_FREE char *got = read_all(&f);
	if (!strstr(got, part))
		fail_msg("%s: no \"%s\" in: %s", path, part, got);
	release(&f);
}

int write_whole(const char *path, const char *text)
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

static void *flush_thread(void *arg)
{
	struct flushing *w = arg;
	w->err = w->f->node->ops->flush(w->f->node, w->op, w->f->o.file);
	return NULL;
}

void flush_begin(struct flushing *w, struct opened *f)
{
	w->f = f;
	w->op = fake_op(0);
	assert_int_equal(pthread_create(&w->thread, NULL, flush_thread, w), 0);
}

int flush_end(struct flushing *w)
{
	pthread_join(w->thread, NULL);
	fake_op_free(w->op);
	return w->err;
}

pid_t child(int signal, bool ended)
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

void bury(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}
