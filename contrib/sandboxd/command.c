/*
 * A command's record, and what others ask of it; see command.h. command_pump.c is its thread, which alone ends
 * things: others ask by setting cancel_grace and writing to `wake`.
 */
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "command_pump.h"
#include "commands.h"
#include "environment.h"
#include "json_make.h"
#include "script.h"
#include "session.h"
#include "text.h"
#include "timed.h"

enum { CHUNK = 64 << 10, SHELL_GRACE_MS = 2000, SHELL_TELL_MS = 1000 };

const char *command_status(struct command *c)
{
	AUTO_UNLOCK(&c->lock);
	if (c->start_error)
		return "error";
	if (!c->ended)
		return "running";
	if (c->killed || c->exit_code == 128 + SIGKILL || c->exit_code == 128 + SIGTERM)
		return "killed";
	return c->exit_code ? "failed" : "completed";
}

/* --- the record --- */

/* A file for stdin (unless there is one already): programs that look may seek in it, and no thread has to feed them. */
static int input_make(struct command *c, const void *p, size_t n)
{
	if (c->in >= 0)
		return 0;
	if (!n) {
		c->in = open("/dev/null", O_RDONLY | O_CLOEXEC);
		return c->in < 0 ? -errno : 0;
	}
	c->in = open(c->server->spool_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (c->in < 0)
		c->in = memfd_create("stdin", MFD_CLOEXEC);
	if (c->in < 0)
		return -errno;
	for (size_t done = 0; done < n;) {
		ssize_t part = pwrite(c->in, (const char *)p + done, n - done, (off_t)done);
		if (part < 0 && errno == EINTR)
			continue;
		if (part <= 0)
			return part < 0 ? -errno : -EIO;
		done += (size_t)part;
	}
	return 0;
}

/* Where it begins, and with which variables: the session's, or those of all. */
static int place_make(struct command *c, const char *cwd)
{
	AUTO_BUF b = BUF_INIT;
	AUTO_BUF base = BUF_INIT;
	AUTO_BUF dir = BUF_INIT;
	int err = c->session ? session_place(c->session, &dir, &base) : 0;
	if (err < 0)
		return err;
	c->own_cwd = cwd && *cwd;
	if (c->own_cwd && !(c->given_cwd = strdup(cwd)))
		return -ENOMEM;
	if (!c->own_cwd || *cwd != '/')
		buf_str(&b, dir.size ? dir.data : c->server->workspace);
	if (c->own_cwd)
		buf_printf(&b, "%s%s", *cwd == '/' ? "" : "/", cwd);
	c->cwd = buf_steal(&b);
	err = c->cwd ? environment_make(&c->environment, c->server, &base, c->cwd, c->env) : -ENOMEM;
	return !err && c->columns ? environment_default(&c->environment, "TERM", "xterm-256color")
							  : err;
}

static int command_fill(struct command *c, const struct command_spec *spec)
{
	if (spec->id) {
		c->id = strdup(spec->id);
	} else {
		char letters[7];
		text_random(letters, 6);
		if (asprintf(&c->id, "proc_%lld_%s", (long long)text_now_ms(), letters) < 0)
			c->id = NULL;
	}
	c->text = malloc(spec->size + 1);
	if (!c->id || !c->text || !json_copy(spec->env, &c->env))
		return -ENOMEM;
	memcpy(c->text, spec->text, spec->size);
	c->text[spec->size] = '\0';
	c->text_size = spec->size;
	c->timeout_ms = spec->timeout_ms;
	c->timeout_note = spec->timeout_note;
	c->listed = spec->listed;
	c->session = session_get(spec->session);
	c->in_shell = spec->session && spec->in_shell;
	c->columns = spec->columns;
	c->rows = spec->rows;
	if (c->session && c->timeout_ms < 0 && !spec->no_timeout)
		c->timeout_ms = session_timeout_ms(c->session);
	int err = place_make(c, spec->cwd);
	if (!err)
		err = input_make(c, spec->input, spec->input_size);
	if (!err)
		err = spool_new(c->server->spool_dir, c->server->output_max, &c->spool);
	if (err)
		return err;
	c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return c->wake < 0 ? -errno : 0;
}

int command_new(struct server *server, const struct command_spec *spec, struct command **out)
{
	AUTO_FD int input = spec->input_fd > 0 ? spec->input_fd : -1;
	if (spec->size > COMMAND_SCRIPT_MAX)
		return -E2BIG;
	struct command *c = calloc(1, sizeof *c);
	if (!c)
		return -ENOMEM;
	atomic_init(&c->references, 1);
	c->server = server;
	c->in = steal_fd(&input);
	c->wake = c->terminal = -1;
	c->cancel_grace = -1;
	pthread_mutex_init(&c->lock, NULL);
	(void)timed_cond_init(&c->changed); /* CLOCK_MONOTONIC is always there */
	int err = command_fill(c, spec);
	if (err < 0) {
		command_free(c);
		return err;
	}
	*out = c;
	return 0;
}

void command_free(struct command *c)
{
	script_remove(&c->script);
	session_put(c->session);
	spool_put(c->spool);
	proc_set_release(&c->held);
	if (c->in >= 0)
		close(c->in);
	if (c->wake >= 0)
		close(c->wake);
	if (c->terminal >= 0)
		close(c->terminal);
	free(c->watchers);
	json_object_put(c->env);
	buf_release(&c->environment);
	free(c->id);
	free(c->text);
	free(c->cwd);
	free(c->given_cwd);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* --- for others --- */

void command_wake(struct command *c)
{
	uint64_t one = 1;
	/* A full counter is as good a wake-up as any. */
	(void)!write(c->wake, &one, sizeof one);
}

void command_sleep(struct command *c)
{
	uint64_t count;
	struct pollfd p = {.fd = c->wake, .events = POLLIN};
	if (poll(&p, 1, -1) > 0)
		(void)!read(c->wake, &count, sizeof count); /* only empties it */
}

bool command_cancel_asked(struct command *c)
{
	AUTO_UNLOCK(&c->lock);
	return c->cancel_grace >= 0;
}

pid_t command_pid(struct command *c)
{
	AUTO_UNLOCK(&c->lock);
	return c->pid;
}

int command_watch(struct command *c, int eventfd)
{
	AUTO_UNLOCK(&c->lock);
	int *more = realloc(c->watchers, (c->watcher_count + 1) * sizeof *more);
	if (!more)
		return -ENOMEM;
	c->watchers = more;
	more[c->watcher_count++] = eventfd;
	return 0;
}

void command_unwatch(struct command *c, int eventfd)
{
	AUTO_UNLOCK(&c->lock);
	size_t kept = 0;
	for (size_t i = 0; i < c->watcher_count; i++)
		if (c->watchers[i] != eventfd)
			c->watchers[kept++] = c->watchers[i];
	c->watcher_count = kept;
}

void command_leader_ended(struct command *c, int wait_status)
{
	c->leader_reaped = true;
	c->wait_status = wait_status;
	command_wake(c);
}

int command_wait_started(struct command *c)
{
	AUTO_UNLOCK(&c->lock);
	while (!c->started)
		pthread_cond_wait(&c->changed, &c->lock);
	return c->start_error;
}

bool command_signal_all(struct command *c, struct proc_set *set, int sig)
{
	if (c->in_shell)
		return session_signal(c->session, c, set, sig, sig == SIGINT) || sig != SIGINT;
	proc_signal_tree(set, c->pid, !c->leader_reaped, sig);
	return true;
}

/* 0; -ESRCH: it has ended; -EAGAIN: its shell cannot be interrupted just now, so it was not. */
static int signal_once(struct command *c, int sig)
{
	AUTO_UNLOCK(&c->lock);
	if (c->ended)
		return -ESRCH;
	struct proc_set set = {NULL, 0, 0};
	c->signalled = sig;
	if (sig == SIGKILL)
		c->killed = true;
	bool sent = command_signal_all(c, &set, sig);
	proc_set_release(&set);
	return sent ? 0 : -EAGAIN;
}

int command_signal(struct command *c, int sig)
{
	/* What would have ended a shell of its own ends the command in one that is shared. */
	if (c->in_shell && (sig == SIGTERM || sig == SIGKILL || sig == SIGHUP || sig == SIGQUIT))
		return command_cancel(c, sig == SIGKILL ? 0 : SHELL_GRACE_MS);
	int err = signal_once(c, sig);
	if (err != -EAGAIN)
		return err;
	/* Nothing tells when it can be; one that waits for its turn, or has just ended, needs none. */
	for (int64_t until = text_monotonic_ms() + SHELL_TELL_MS;
		 err == -EAGAIN && text_monotonic_ms() < until;) {
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
		err = signal_once(c, sig);
	}
	return 0;
}

int command_cancel(struct command *c, int64_t grace_ms)
{
	AUTO_UNLOCK(&c->lock);
	if (c->ended)
		return -ESRCH;
	if (c->cancel_grace < 0 || grace_ms < c->cancel_grace)
		c->cancel_grace = grace_ms;
	c->killing = true;
	c->cancelled = true;
	c->killed = true;
	command_wake(c);
	return 0;
}

bool command_wait_dead(struct command *c, int64_t deadline_ms)
{
	AUTO_UNLOCK(&c->lock);
	while (!c->ended || c->killing)
		if (timed_cond_wait(&c->changed, &c->lock, deadline_ms) == -ETIMEDOUT)
			return c->ended && !c->killing;
	return true;
}

int command_wait_output(struct command *c, enum spool_view view, uint64_t off, int64_t deadline_ms)
{
	AUTO_UNLOCK(&c->lock);
	for (;;) {
		if (spool_size(c->spool, view) > off)
			return 1;
		if (c->ended)
			return 0;
		if (timed_cond_wait(&c->changed, &c->lock, deadline_ms) == -ETIMEDOUT)
			return -ETIMEDOUT;
	}
}

void command_sync(struct command *c)
{
	AUTO_UNLOCK(&c->lock);
	uint64_t wanted = ++c->sync_wanted;
	command_wake(c);
	while (!c->ended && c->sync_done < wanted)
		pthread_cond_wait(&c->changed, &c->lock);
}

bool command_ended(struct command *c)
{
	AUTO_UNLOCK(&c->lock);
	return c->ended;
}

bool command_has_run(struct command *c)
{
	AUTO_UNLOCK(&c->lock);
	return c->started && !c->start_error;
}

int command_output(struct command *c, enum spool_view view, uint64_t end, struct buf *out)
{
	uint64_t off = spool_first(c->spool, view);
	while (off < end) {
		char *to = buf_reserve(out, CHUNK);
		if (!to)
			return -ENOMEM;
		size_t want = end - off < CHUNK ? (size_t)(end - off) : CHUNK;
		uint64_t next = off;
		ssize_t n = spool_pread(c->spool, view, to, want, off, NULL, &next);
		if (n == -ESPIPE && next > off) {
			off = next;
			continue;
		}
		if (n <= 0)
			return (int)n;
		out->size += (size_t)n;
		out->data[out->size] = '\0';
		off += (uint64_t)n;
	}
	return 0;
}
