/*
 * The process behind a context and the channel to it; see interpreter_impl.h. Everything here is done by the thread of the
 * context; others reach the process through context.command alone.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "commands.h"
#include "http.h"
#include "interpreter_impl.h"
#include "interpreter_scripts.h"
#include "json_make.h"
#include "json_read.h"
#include "text.h"

enum {
	START_MS = 60000,
	INTERRUPT_GRACE_MS = 3000, /* from a time-out's interrupt to the end of the executor */
	END_WAIT_MS = 5000,
	LINE_MAX_SIZE = 64 << 20,
	RESULTS_MAX_SIZE = 128 << 20, /* of one run, text and the memory of its values */
	CHUNK = 64 << 10,
	KILL_ROUNDS = 16,
	LINE_DEPTH = 128,
	LINE_MOST = 48 << 20 /* less than who reads it there takes */
};

static const char mark_name[] = "SANDBOXD_CONTEXT";

/* --- its end --- */

/* Does the environment of a process name this context? */
static bool is_marked(int proc, const char *pid, const char *mark)
{
	AUTO_BUF path = BUF_INIT;
	AUTO_BUF env = BUF_INIT;
	AUTO_BUF wanted = BUF_INIT;
	buf_printf(&path, "%s/environ", pid);
	buf_printf(&wanted, "%s=%s", mark_name, mark);
	if (buf_error(&path) < 0 || buf_error(&wanted) < 0)
		return false;
	AUTO_FD int fd = openat(proc, path.data, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : 1;
	while (n > 0) {
		char *to = buf_reserve(&env, CHUNK);
		n = to ? read(fd, to, CHUNK) : -1;
		if (n > 0)
			env.size += (size_t)n;
	}
	if (!env.size)
		return false;
	/* The last string of an environment that its process has rewritten may lack its end. */
	buf_char(&env, '\0');
	for (size_t at = 0; !buf_error(&env) && at < env.size; at += strlen(env.data + at) + 1)
		if (strcmp(env.data + at, wanted.data) == 0)
			return true;
	return false;
}

/* Kills what code has started and put apart (a session of its own, an adopted orphan). How many there were. */
static size_t kill_marked(const char *mark)
{
	size_t count = 0;
	DIR *dir = opendir("/proc");
	if (!dir)
		return 0;
	for (struct dirent *d; (d = readdir(dir));) {
		if (!isdigit((unsigned char)*d->d_name))
			continue;
		pid_t pid = (pid_t)strtol(d->d_name, NULL, 10);
		AUTO_FD int fd = (int)syscall(SYS_pidfd_open, pid, 0u);
		/* Looked at after it is held: the number cannot pass to another then. */
		if (fd < 0 || !is_marked(dirfd(dir), d->d_name, mark))
			continue;
		if (syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0u) == 0)
			count++;
	}
	closedir(dir);
	return count;
}

void executor_end(struct context *c)
{
	struct executor *e = &c->executor;
	if (!e->command)
		return;
	/* -ESRCH: it has ended by itself. */
	(void)command_cancel(e->command, 0);
	(void)command_wait_dead(e->command, text_monotonic_ms() + END_WAIT_MS);
	for (int i = 0; i < KILL_ROUNDS && kill_marked(c->mark); i++)
		;
	if (e->watch)
		spool_unwatch(e->command->spool, e->watch);
	if (e->channel >= 0)
		close(e->channel);
	if (e->pidfd >= 0)
		close(e->pidfd);
	buf_release(&e->input);
	/* -EBUSY: it cannot be killed; its record goes with the oldest. */
	(void)commands_forget(c->server->commands, e->command->id);
	struct command *shared;
	{
		AUTO_UNLOCK(&c->lock);
		shared = c->command;
		c->command = NULL;
		free(c->kernel);
		c->kernel = NULL;
	}
	commands_put(shared);
	commands_put(e->command);
	*e = (struct executor){.channel = -1, .pidfd = -1};
}

static bool is_gone(const struct executor *e)
{
	/* It was gone before it could be held. */
	if (e->pidfd < 0)
		return command_ended(e->command);
	struct pollfd p = {.fd = e->pidfd, .events = POLLIN};
	return poll(&p, 1, 0) > 0;
}

/* How it ended, as an error. */
static struct json_object *death(struct context *c, const char *when)
{
	struct command *k = c->executor.command;
	const char *name = language_name(c->language);
	(void)command_wait_dead(k, text_monotonic_ms() + END_WAIT_MS);
	if (!command_ended(k))
		return run_error("KernelDied", "the %s process hangs", name);
	const char *sig = k->exit_code > 128 ? sigabbrev_np(k->exit_code - 128) : NULL;
	AUTO_BUF how = BUF_INIT;
	if (sig)
		buf_printf(&how, "was killed by SIG%s%s", sig,
			k->exit_code == 128 + SIGKILL ? " (by itself, by another, or for want of memory)" : "");
	else
		buf_printf(&how, "ended with exit code %d", k->exit_code);
	return run_error("KernelDied",
		"the %s process %s %s; its variables are gone, the next run starts a new one", name,
		how.data ? how.data : "ended", when);
}

/* --- the channel --- */

/*
 * Waits for the next line, which stays in e->input until line_take: 1 and its length (without the newline). 0: the process is
 * gone. -ETIMEDOUT, -EINTR: somebody has changed something. -EPROTO: it does not speak as it should.
 */
static int line_wait(struct context *c, int64_t deadline, size_t *n)
{
	struct executor *e = &c->executor;
	for (;;) {
		char *end = e->scanned < e->input.size
						? memchr(e->input.data + e->scanned, '\n', e->input.size - e->scanned)
						: NULL;
		if (end) {
			*n = (size_t)(end - e->input.data);
			return 1;
		}
		e->scanned = e->input.size;
		if (e->input.size > LINE_MAX_SIZE)
			return -EPROTO;
		int64_t left = deadline < 0 ? 60000 : deadline - text_monotonic_ms();
		struct pollfd fds[3] = {{.fd = e->channel, .events = POLLIN},
			{.fd = e->pidfd, .events = POLLIN}, {.fd = c->wake, .events = POLLIN}};
		int some = poll(fds, 3, left < 0 ? 0 : left > 60000 ? 60000 : (int)left);
		if (some == 0 && deadline >= 0 && left <= 60000)
			return -ETIMEDOUT;
		if (some <= 0)
			continue;
		if (fds[2].revents) {
			uint64_t count;
			(void)!read(c->wake, &count, sizeof count); /* only empties it */
			return -EINTR;
		}
		char *to = buf_reserve(&e->input, CHUNK);
		if (!to)
			return -ENOMEM;
		ssize_t got = read(e->channel, to, CHUNK);
		if (got > 0)
			e->input.size += (size_t)got;
		else if (got == 0 || (errno != EAGAIN && errno != EINTR) || fds[1].revents)
			return 0;
	}
}

/* The line as JSON, or NULL: it is none. Takes it out of the buffer. *weight: the memory it takes; above LINE_MOST it is not read. */
static struct json_object *line_take(struct executor *e, size_t n, size_t *weight)
{
	struct json_object *o;
	*weight = json_weight(e->input.data, n, LINE_MOST);
	(void)json_read(e->input.data, n, LINE_DEPTH, LINE_MOST, &o); /* NULL: whyever */
	buf_consume(&e->input, n + 1);
	e->scanned = 0;
	if (o && json_object_is_type(o, json_type_object))
		return o;
	json_object_put(o);
	return NULL;
}

/* 0, or a negative errno: the process is gone. */
static int line_send(struct context *c, struct json_object *o)
{
	struct executor *e = &c->executor;
	size_t n = 0;
	const char *text = json_text_of(o, &n);
	if (!text)
		return -ENOMEM;
	for (size_t done = 0; done <= n;) {
		const char *p = done < n ? text + done : "\n";
		ssize_t some = send(e->channel, p, done < n ? n - done : 1, MSG_NOSIGNAL);
		if (some > 0)
			done += (size_t)some;
		if (some > 0 || errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		struct pollfd fds[2] = {
			{.fd = e->channel, .events = POLLOUT}, {.fd = e->pidfd, .events = POLLIN}};
		if (poll(fds, 2, -1) > 0 && fds[1].revents)
			return -EPIPE;
	}
	return 0;
}

/* --- its beginning --- */

static void on_output(void *arg)
{
	struct context *c = arg;
	AUTO_UNLOCK(&c->lock);
	pthread_cond_broadcast(&c->changed);
}

static struct json_object *environment(struct context *c)
{
	struct json_object *env = json_object_new_object();
	if (c->env) {
		json_object_object_foreach(c->env, name, value)
		{
			json_add_as(env, name, value);
		}
	}
	json_add(env, mark_name, text_json_str(c->mark));
	json_add(env, "SANDBOXD_LANGUAGE", json_object_new_string(language_name(c->language)));
	return env;
}

/* 0, or a negative errno. */
static int start(struct context *c)
{
	struct executor *e = &c->executor;
	AUTO_FREE char *id = NULL;
	int pair[2];
	if (asprintf(&id, "code-%s-%u", c->id, c->starts++) < 0) {
		id = NULL;
		return -ENOMEM;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	e->channel = pair[0];
	if (fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0) {
		close(pair[1]);
		return -errno;
	}
	bool python = c->language == LANGUAGE_PYTHON;
	struct json_object *env = environment(c);
	struct command_spec spec = {.id = id,
		.text = python ? interpreter_python : interpreter_node,
		.size = python ? (size_t)(interpreter_python_end - interpreter_python)
					   : (size_t)(interpreter_node_end - interpreter_node),
		.cwd = c->cwd,
		.env = env,
		.input_fd = pair[1],
		.timeout_ms = -1};
	struct command *k = NULL;
	int err = json_whole(env) ? commands_start(c->server->commands, &spec, EXISTS_REPLACE, &k, NULL)
							  : -ENOMEM;
	json_object_put(env);
	if (err < 0)
		return err;
	e->command = k;
	e->pidfd = (int)syscall(SYS_pidfd_open, k->pid, 0u);
	e->watch = spool_watch(k->spool, on_output, c);
	atomic_fetch_add(&k->references, 1);
	AUTO_UNLOCK(&c->lock);
	c->command = k;
	return e->watch ? 0 : -ENOMEM;
}

static void take_ready(struct context *c, struct json_object *o)
{
	struct json_object *missing = NULL;
	const char *kernel = json_text(o, "kernel", NULL);
	c->executor.ready = true;
	c->executor.seen = spool_size(c->executor.command->spool, SPOOL_BOTH);
	json_object_object_get_ex(o, "missing", &missing);
	AUTO_UNLOCK(&c->lock);
	c->kernel = strdup(kernel ? kernel : "");
	json_object_put(c->missing);
	c->missing = json_object_get(missing);
}

/* What has been asked for meanwhile, as an error; NULL: nothing. */
static struct json_object *stopped(struct context *c, struct run *r)
{
	AUTO_UNLOCK(&c->lock);
	if (c->deleted)
		return run_error("ContextDeleted", "the context was deleted");
	if (r && r->interrupted)
		return run_error("KeyboardInterrupt", "interrupted before it began");
	return NULL;
}

/* It did not come up: what it has printed says why. */
static struct json_object *start_failure(struct context *c)
{
	struct json_object *error = death(c, "while it started");
	AUTO_BUF said = BUF_INIT;
	struct command *k = c->executor.command;
	if (command_output(k, SPOOL_STDERR, UINT64_MAX, &said) == 0 && said.size) {
		struct json_object *lines = NULL;
		json_object_object_get_ex(error, "traceback", &lines);
		json_append(lines, text_json(said.data, said.size));
	}
	return error;
}

static int wait_ready(struct context *c, struct run *r, struct json_object **error)
{
	int64_t deadline = text_monotonic_ms() + START_MS;
	while (!c->executor.ready) {
		*error = stopped(c, r);
		if (*error)
			return -ECANCELED;
		size_t n;
		int got = line_wait(c, deadline, &n);
		if (got == -EINTR)
			continue;
		if (got == 1) {
			size_t weight;
			struct json_object *o = line_take(&c->executor, n, &weight);
			const char *type = o ? json_text(o, "type", NULL) : NULL;
			if (type && strcmp(type, "ready") == 0)
				take_ready(c, o);
			json_object_put(o);
			continue;
		}
		*error = got == -ETIMEDOUT ? run_error("KernelDied", "the %s process does not come up",
										 language_name(c->language))
								   : start_failure(c);
		executor_end(c);
		return -EIO;
	}
	return 0;
}

int executor_ready(struct context *c, struct run *r, struct json_object **error)
{
	struct executor *e = &c->executor;
	*error = stopped(c, r);
	if (*error)
		return -ECANCELED;
	if (e->command && is_gone(e)) {
		*error = death(c, "since the last run");
		executor_end(c);
		bool wanted;
		{
			AUTO_UNLOCK(&c->lock);
			wanted = c->restarting;
			c->restarting = false;
		}
		if (!wanted)
			return -EIO;
		json_object_put(*error);
		*error = NULL;
	}
	if (!e->command) {
		int err = start(c);
		if (err < 0) {
			executor_end(c);
			if (e->channel >= 0)
				close(e->channel);
			e->channel = -1;
			bool cwd = err == -ENOENT || err == -ENOTDIR || err == -EACCES;
			*error = run_error("KernelDied", "the %s process cannot be started: %s%s%s",
				language_name(c->language), strerrordesc_np(-err), cwd ? ": " : "",
				cwd ? c->cwd : "");
			return err;
		}
	}
	return wait_ready(c, r, error);
}

/* --- a run --- */

static int result_add(struct context *c, struct run *r, struct json_object *o, size_t size)
{
	/* What was printed before it is told before it. */
	command_sync(c->executor.command);
	AUTO_UNLOCK(&c->lock);
	if (r->results_size + size > RESULTS_MAX_SIZE) {
		r->left_out++;
		json_object_put(o);
		return 0;
	}
	if (r->results_count % 16 == 0) {
		struct result *results = realloc(r->results, (r->results_count + 16) * sizeof *results);
		if (!results) {
			json_object_put(o);
			return -ENOMEM;
		}
		r->results = results;
	}
	r->results_size += size;
	r->results[r->results_count++] =
		(struct result){.at = spool_size(c->executor.command->spool, SPOOL_BOTH), .json = o};
	pthread_cond_broadcast(&c->changed);
	return 0;
}

static void run_begin(struct context *c, struct run *r)
{
	struct executor *e = &c->executor;
	atomic_fetch_add(&e->command->references, 1);
	AUTO_UNLOCK(&c->lock);
	r->command = e->command;
	/* What came after the last run's end belongs to this one: it is lost otherwise. */
	r->off = e->seen;
	r->end = UINT64_MAX;
	pthread_cond_broadcast(&c->changed);
}

static struct json_object *request_of(const struct run *r)
{
	struct json_object *o = json_object_new_object();
	json_add(o, "op", json_object_new_string(r->code ? "run" : "set"));
	if (r->code)
		json_add(o, "code", text_json(r->code, r->size));
	else
		json_add_as(o, "variables", r->variables);
	return o;
}

struct running {
	struct context *c;
	struct run *r;
	int64_t deadline;   /* of the next step of a time-out; -1: none */
	bool begun;         /* the executor is ready for a ^C */
	unsigned signalled; /* so many ^C were due by the last that was sent */
	bool timed_out, killed, over;
	struct json_object *error;
};

/* Sends the ^C that is due. */
static void running_interrupt(struct running *s)
{
	unsigned wanted;
	{
		AUTO_UNLOCK(&s->c->lock);
		wanted = s->r->interrupted + s->timed_out;
	}
	if (!s->begun || s->signalled == wanted)
		return;
	s->signalled = wanted;
	/* -ESRCH: it is gone, which is seen at the channel. */
	(void)command_signal(s->c->executor.command, SIGINT);
}

static void running_late(struct running *s)
{
	if (s->timed_out) {
		s->killed = true;
		s->deadline = -1;
		(void)command_cancel(s->c->executor.command, 0);
		return;
	}
	s->timed_out = true;
	s->deadline = text_monotonic_ms() + INTERRUPT_GRACE_MS;
}

/* A display, which is taken; NULL: it is left out. The process waits for the answer. */
static void running_display(struct running *s, struct json_object *o, size_t size)
{
	struct context *c = s->c;
	if (o) {
		json_object_object_del(o, "type");
		(void)result_add(c, s->r, o, size); /* out of memory: a display less */
	} else {
		AUTO_UNLOCK(&c->lock);
		s->r->left_out++;
	}
	struct json_object *ack = json_object_new_object();
	json_add(ack, "op", json_object_new_string("ack"));
	/* It is gone, or would wait for ever: either is seen at the channel. */
	if (line_send(c, ack) < 0)
		shutdown(c->executor.channel, SHUT_RDWR);
	json_object_put(ack);
}

static void running_line(struct running *s, size_t n)
{
	struct context *c = s->c;
	size_t weight;
	struct json_object *o = line_take(&c->executor, n, &weight), *error = NULL;
	const char *type = o ? json_text(o, "type", NULL) : NULL;
	if (type && strcmp(type, "begun") == 0) {
		s->begun = true;
	} else if (type && strcmp(type, "result") == 0) {
		running_display(s, steal(o), n + weight);
	} else if (weight > LINE_MOST && weight != SIZE_MAX) {
		running_display(s, NULL, 0); /* nothing else is so large */
	} else if (type && strcmp(type, "done") == 0) {
		s->over = true;
		json_number(o, "count", &s->r->count);
		if (json_object_object_get_ex(o, "error", &error))
			s->error = json_object_get(error);
	}
	json_object_put(o);
}

static void running_gone(struct running *s)
{
	struct context *c = s->c;
	bool restarted;
	{
		AUTO_UNLOCK(&c->lock);
		restarted = c->restarting;
		c->restarting = false;
	}
	s->over = true;
	s->error = restarted ? run_error("KernelRestarted", "the context was restarted while this ran")
						 : death(c, "while this ran");
}

void executor_run(struct context *c, struct run *r, struct json_object **error)
{
	struct running s = {.c = c, .r = r, .deadline = -1};
	run_begin(c, r);
	if (r->timeout_ms >= 0)
		s.deadline = text_monotonic_ms() + r->timeout_ms;
	struct json_object *request = request_of(r);
	if (line_send(c, request) < 0)
		running_gone(&s);
	json_object_put(request);
	while (!s.over) {
		running_interrupt(&s);
		size_t n;
		int got = line_wait(c, s.deadline, &n);
		if (got == 1)
			running_line(&s, n);
		else if (got == -ETIMEDOUT)
			running_late(&s);
		else if (got != -EINTR)
			running_gone(&s);
	}
	struct command *k = c->executor.command;
	command_sync(k);
	if (r->left_out) {
		AUTO_BUF note = BUF_INIT;
		buf_printf(&note, "\n[%zu displays left out: of too many values, or 128 MiB are full]\n",
			r->left_out);
		if (!buf_error(&note))
			(void)spool_append(k->spool, SPOOL_STDERR, note.data, note.size);
	}
	{
		/* The reader's look at the size is before this one or knows of it: what comes later is the next run's alone. */
		AUTO_UNLOCK(&c->lock);
		r->end = c->executor.seen = spool_size(k->spool, SPOOL_BOTH);
	}
	if (s.timed_out) {
		json_object_put(s.error);
		s.error = run_error("TimeoutError", "Execution timed out after %lld ms%s",
			(long long)r->timeout_ms,
			s.killed ? "; it could not be interrupted, its variables are gone" : "");
	}
	*error = s.error;
	if (is_gone(&c->executor))
		executor_end(c);
}
