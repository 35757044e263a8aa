/*
 * A command's record and its thread; see command.h. The thread owns the pipes. It alone ends
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
#include <unistd.h>

#include "cleanup.h"
#include "commands.h"
#include "script.h"
#include "text.h"

enum {
	QUIET_MS = 200, /* after the leader's end, for children that print on */
	TIMEOUT_GRACE_MS = 5000,
	KILL_ROUND_MS = 50,     /* between looks at what is being killed */
	KILL_GIVE_UP_MS = 5000, /* after SIGKILL: what still lives cannot be killed */
	CHUNK = 64 << 10,
	LAST_DRAIN = 1 << 20, /* more than a pipe holds unless it was enlarged to its limit */
	THREAD_STACK = 256 << 10
};

struct pump {
	struct command *c;
	int fd[2]; /* stdout, stderr; -1: closed */
	bool leader_seen;
	int64_t quiet_at;
	int64_t timeout_at;   /* -1: none */
	int64_t kill_at;      /* when TERM becomes KILL; -1: not ending anything */
	int64_t kill_give_up; /* -1: KILL was not sent yet */
	char chunk[CHUNK];
};

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

static int environment_make(struct command *c)
{
	const struct {
		const char *name, *value;
	} base[] = {{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		{"HOME", "/root"}, {"LANG", "C.UTF-8"}, {"LC_ALL", "C.UTF-8"}, {"USER", "root"},
		{"SHELL", c->server->shell}, {"PWD", c->cwd}};
	for (size_t i = 0; i < sizeof base / sizeof *base; i++) {
		struct json_object *given = NULL;
		if (c->env && json_object_object_get_ex(c->env, base[i].name, &given) && given)
			continue;
		buf_printf(&c->environment, "%s=%s", base[i].name, base[i].value);
		buf_char(&c->environment, '\0');
	}
	if (c->env) {
		json_object_object_foreach(c->env, name, value)
		{
			if (!value || !*name)
				continue;
			const char *text = json_object_get_string(value);
			if (json_object_is_type(value, json_type_string) &&
				strlen(text) != (size_t)json_object_get_string_len(value))
				return -EINVAL;
			buf_printf(&c->environment, "%s=%s", name, text);
			buf_char(&c->environment, '\0');
		}
	}
	return buf_error(&c->environment);
}

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

static int cwd_make(struct command *c, const char *cwd)
{
	AUTO_BUF b = BUF_INIT;
	if (!cwd || *cwd != '/') {
		buf_str(&b, c->server->workspace);
		if (cwd && *cwd)
			buf_printf(&b, "/%s", cwd);
	} else {
		buf_str(&b, cwd);
	}
	c->cwd = buf_steal(&b);
	return c->cwd ? 0 : -ENOMEM;
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
	if (!c->id || !c->text)
		return -ENOMEM;
	memcpy(c->text, spec->text, spec->size);
	c->text[spec->size] = '\0';
	c->text_size = spec->size;
	c->env = json_object_get(spec->env);
	c->timeout_ms = spec->timeout_ms;
	c->timeout_note = spec->timeout_note;
	c->listed = spec->listed;
	int err = cwd_make(c, spec->cwd);
	if (!err)
		err = environment_make(c);
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
	c->wake = -1;
	c->cancel_grace = -1;
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &attr);
	pthread_condattr_destroy(&attr);
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
	spool_put(c->spool);
	proc_set_release(&c->held);
	if (c->in >= 0)
		close(c->in);
	if (c->wake >= 0)
		close(c->wake);
	json_object_put(c->env);
	buf_release(&c->environment);
	free(c->id);
	free(c->text);
	free(c->cwd);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* --- its thread --- */

static void wake(struct command *c)
{
	uint64_t one = 1;
	/* A full counter is as good a wake-up as any. */
	(void)!write(c->wake, &one, sizeof one);
}

static void tell(struct command *c)
{
	AUTO_UNLOCK(&c->lock);
	pthread_cond_broadcast(&c->changed);
}

/* Reads once from a pipe. False: nothing was there. */
static bool pump_read(struct pump *p, int i)
{
	enum spool_view stream = i ? SPOOL_STDERR : SPOOL_STDOUT;
	ssize_t n = read(p->fd[i], p->chunk, sizeof p->chunk);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		close(p->fd[i]);
		p->fd[i] = -1;
		return false;
	}
	/* A full disk loses bytes, not the command: the place is marked. Out of memory even loses the mark. */
	if (spool_append(p->c->spool, stream, p->chunk, (size_t)n) < 0)
		(void)spool_append_gap(p->c->spool, stream, (uint64_t)n);
	tell(p->c);
	return true;
}

static void pump_end(struct pump *p)
{
	struct command *c = p->c;
	for (int i = 0; i < 2; i++)
		for (size_t reads = 0; p->fd[i] >= 0 && reads < LAST_DRAIN / CHUNK && pump_read(p, i);)
			reads++;
	/* Constant once the leader was seen to be reaped, so the lock is not needed to read it. */
	if (c->timed_out && c->timeout_note) {
		AUTO_BUF note = BUF_INIT;
		buf_printf(&note, "Command timed out after %lldms", (long long)c->timeout_ms);
		if (!buf_error(&note))
			(void)spool_append(c->spool, SPOOL_STDERR, note.data, note.size);
	}
	script_remove(&c->script);
	AUTO_UNLOCK(&c->lock);
	c->ended = true;
	c->end_number = atomic_fetch_add(&c->server->ends, 1);
	c->exit_code = c->timed_out                  ? 124
				   : WIFSIGNALED(c->wait_status) ? 128 + WTERMSIG(c->wait_status)
												 : WEXITSTATUS(c->wait_status);
	/* A signal that was sent by request and was the death of the leader is an end by request. */
	if (WIFSIGNALED(c->wait_status) && c->signalled == WTERMSIG(c->wait_status))
		c->cancelled = true;
	for (int view = SPOOL_BOTH; view <= SPOOL_STDERR; view++)
		c->end_size[view] = spool_size(c->spool, (enum spool_view)view);
	clock_gettime(CLOCK_REALTIME, &c->end_time);
	pthread_cond_broadcast(&c->changed);
}

/* TERM now, KILL at the end of the grace. With c->lock held. */
static void killing_begin(struct pump *p, int64_t grace)
{
	struct command *c = p->c;
	if (p->kill_give_up >= 0)
		return;
	int64_t at = text_monotonic_ms() + grace;
	if (p->kill_at < 0) {
		c->killing = true;
		proc_signal_tree(&c->held, c->pid, !c->leader_reaped, SIGTERM);
		/* What is stopped does not see the TERM otherwise. */
		proc_signal_tree(&c->held, c->pid, !c->leader_reaped, SIGCONT);
		p->kill_at = at;
	} else if (at < p->kill_at) {
		p->kill_at = at;
	}
}

/* One look at what is being killed. With c->lock held. */
static void killing_go_on(struct pump *p, int64_t now)
{
	struct command *c = p->c;
	bool left = !c->leader_reaped || proc_set_alive(&c->held);
	if (left && now >= p->kill_at) {
		if (p->kill_give_up < 0)
			p->kill_give_up = now + KILL_GIVE_UP_MS;
		proc_signal_tree(&c->held, c->pid, !c->leader_reaped, SIGKILL);
	}
	if (!left || (p->kill_give_up >= 0 && now >= p->kill_give_up)) {
		p->kill_at = -1;
		c->killing = false;
		proc_set_release(&c->held);
		pthread_cond_broadcast(&c->changed);
	}
}

/* Looks at the clock and at what others asked for. */
static void pump_look(struct pump *p)
{
	struct command *c = p->c;
	int64_t now = text_monotonic_ms();
	AUTO_UNLOCK(&c->lock);
	if (c->leader_reaped && !p->leader_seen) {
		p->leader_seen = true;
		p->quiet_at = now + QUIET_MS;
	}
	/* Also one that came just before the end: what is held, or holds the pipes, is to go. */
	if (c->cancel_grace >= 0)
		killing_begin(p, c->cancel_grace);
	c->cancel_grace = -1;
	if (!c->leader_reaped && p->timeout_at >= 0 && now >= p->timeout_at) {
		p->timeout_at = -1;
		c->timed_out = true;
		killing_begin(p, TIMEOUT_GRACE_MS);
	}
	if (p->kill_at >= 0)
		killing_go_on(p, now);
}

static void earlier(int64_t *at, int64_t other)
{
	if (other >= 0 && (*at < 0 || other < *at))
		*at = other;
}

/* All that is in the pipes by now goes to the spool, for who waits in command_sync. */
static void pump_sync(struct pump *p)
{
	struct command *c = p->c;
	uint64_t wanted;
	{
		AUTO_UNLOCK(&c->lock);
		wanted = c->sync_wanted;
		if (c->sync_done == wanted)
			return;
	}
	for (int i = 0; i < 2; i++)
		for (size_t reads = 0; p->fd[i] >= 0 && reads < LAST_DRAIN / CHUNK && pump_read(p, i);)
			reads++;
	AUTO_UNLOCK(&c->lock);
	c->sync_done = wanted;
	pthread_cond_broadcast(&c->changed);
}

/* How long poll may wait, in ms; -1: until something happens. */
static int pump_patience(const struct pump *p, bool ended)
{
	int64_t now = text_monotonic_ms(), at = -1;
	if (!p->leader_seen)
		earlier(&at, p->timeout_at);
	if (p->leader_seen && !ended)
		earlier(&at, p->quiet_at);
	if (p->kill_at >= 0)
		earlier(&at, now + KILL_ROUND_MS);
	if (at < 0)
		return -1;
	int64_t wait = at > now ? at - now : 0;
	return wait > 60000 ? 60000 : (int)wait;
}

static void pump_run(struct pump *p)
{
	struct command *c = p->c;
	bool ended = false;
	for (;;) {
		pump_look(p);
		pump_sync(p);
		bool closed = p->fd[0] < 0 && p->fd[1] < 0;
		if (!ended && p->leader_seen && (closed || text_monotonic_ms() >= p->quiet_at)) {
			pump_end(p);
			ended = true;
			closed = p->fd[0] < 0 && p->fd[1] < 0;
		}
		if (ended && closed && p->kill_at < 0)
			return;
		struct pollfd fds[3] = {{.fd = p->fd[0], .events = POLLIN},
			{.fd = p->fd[1], .events = POLLIN}, {.fd = c->wake, .events = POLLIN}};
		if (poll(fds, 3, pump_patience(p, ended)) <= 0)
			continue;
		if (fds[2].revents) {
			uint64_t count;
			(void)!read(c->wake, &count, sizeof count); /* only empties it */
		}
		for (int i = 0; i < 2; i++)
			if (fds[i].revents)
				pump_read(p, i);
	}
}

/* An interpreter that cannot be run is the script's fault: 127 and a sentence, as a shell does. */
static void bad_interpreter(struct command *c, const char *interpreter, int err)
{
	AUTO_BUF b = BUF_INIT;
	buf_printf(&b, "%s: bad interpreter: %s\n", interpreter, strerrordesc_np(err));
	if (!buf_error(&b))
		(void)spool_append(c->spool, SPOOL_STDERR, b.data, b.size);
}

static int command_begin(struct command *c, int out, int err_end)
{
	struct script script;
	int err = script_make(c->server, c->text, c->text_size, &script);
	c->script = script.file;
	AUTO_FREE const char **env = NULL;
	if (!err)
		err = script_environment(&c->environment, &env);
	if (err < 0) {
		script_release(&script);
		return err;
	}
	struct spawn s = {.argv = script.argv,
		.env = env,
		.cwd = c->cwd,
		.in = c->in,
		.out = out,
		.err = err_end,
		.processes = c->server->processes,
		.files = c->server->own_files};
	int status;
	clock_gettime(CLOCK_REALTIME, &c->begin_time);
	err = commands_fork(c, &s, &status);
	if (!err)
		err = spawn_outcome(status);
	if (err > 0 && script.has_interpreter) {
		bad_interpreter(c, script.argv[0], err);
		err = 0;
	}
	script_release(&script);
	return err > 0 ? -err : err;
}

static int pipes_make(struct pump *p, int ends[2])
{
	for (int i = 0; i < 2; i++) {
		int pair[2];
		if (pipe2(pair, O_CLOEXEC) < 0)
			return -errno;
		p->fd[i] = pair[0];
		ends[i] = pair[1];
		if (fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0)
			return -errno;
	}
	return 0;
}

static void *command_thread(void *arg)
{
	struct command *c = arg;
	AUTO_FREE struct pump *p = calloc(1, sizeof *p);
	int ends[2] = {-1, -1};
	int err = -ENOMEM;
	if (p) {
		*p = (struct pump){.c = c, .fd = {-1, -1}, .kill_at = -1, .kill_give_up = -1};
		err = pipes_make(p, ends);
		if (!err)
			err = command_begin(c, ends[0], ends[1]);
	}
	for (int i = 0; i < 2; i++)
		if (ends[i] >= 0)
			close(ends[i]);
	if (c->in >= 0)
		close(c->in);
	c->in = -1;
	buf_release(&c->environment);
	{
		AUTO_UNLOCK(&c->lock);
		c->start_error = err;
		c->started = true;
		c->ended = err < 0;
		pthread_cond_broadcast(&c->changed);
	}
	if (!err) {
		p->timeout_at = c->timeout_ms < 0 ? -1 : text_monotonic_ms() + c->timeout_ms;
		pump_run(p);
	}
	for (int i = 0; p && i < 2; i++)
		if (p->fd[i] >= 0)
			close(p->fd[i]);
	script_remove(&c->script);
	spool_end(c->spool);
	{
		AUTO_UNLOCK(&c->lock);
		c->killing = false;
		pthread_cond_broadcast(&c->changed);
	}
	commands_thread_ended(c);
	return NULL;
}

int command_launch(struct command *c)
{
	pthread_attr_t attr;
	pthread_t thread;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	int err = pthread_attr_setstacksize(&attr, THREAD_STACK);
	if (!err)
		err = pthread_create(&thread, &attr, command_thread, c);
	pthread_attr_destroy(&attr);
	return -err;
}

/* --- for others --- */

void command_leader_ended(struct command *c, int wait_status)
{
	c->leader_reaped = true;
	c->wait_status = wait_status;
	wake(c);
}

int command_wait_started(struct command *c)
{
	AUTO_UNLOCK(&c->lock);
	while (!c->started)
		pthread_cond_wait(&c->changed, &c->lock);
	return c->start_error;
}

int command_signal(struct command *c, int sig)
{
	AUTO_UNLOCK(&c->lock);
	if (c->ended)
		return -ESRCH;
	struct proc_set set = {NULL, 0, 0};
	c->signalled = sig;
	if (sig == SIGKILL)
		c->killed = true;
	proc_signal_tree(&set, c->pid, !c->leader_reaped, sig);
	proc_set_release(&set);
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
	wake(c);
	return 0;
}

/* 0, or ETIMEDOUT. With c->lock held. */
static int wait_change(struct command *c, int64_t deadline_ms)
{
	struct timespec until = {
		.tv_sec = (time_t)(deadline_ms / 1000), .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
	return pthread_cond_timedwait(&c->changed, &c->lock, &until);
}

bool command_wait_dead(struct command *c, int64_t deadline_ms)
{
	AUTO_UNLOCK(&c->lock);
	while (!c->ended || c->killing)
		if (wait_change(c, deadline_ms) == ETIMEDOUT)
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
		if (wait_change(c, deadline_ms) == ETIMEDOUT)
			return -ETIMEDOUT;
	}
}

void command_sync(struct command *c)
{
	AUTO_UNLOCK(&c->lock);
	uint64_t wanted = ++c->sync_wanted;
	wake(c);
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
