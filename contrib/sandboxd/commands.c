/*
 * The table of commands and the reaper; see commands.h. `lock` covers the list, the refusals and
 * the reaper's state. The reaper reaps only with the lock of the table and, for a leader, of its
 * command: who holds one of them can trust a leader's number.
 */
#include "commands.h"

#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "cleanup.h"
#include "text.h"
#include "timed.h"

enum {
	KEEP_LISTED = 512,
	KEEP_UNLISTED = 64,
	REFUSALS = 1024,
	REFUSE_MS = 60000,
	STOP_TERM_MS = 1000,
	STOP_KILL_MS = 5000,
	STOP_ROUND_MS = 20
};

struct refusal {
	char *id;
	int64_t until;
};

struct commands {
	struct server *server;
	pthread_t reaper;

	pthread_mutex_t lock; /* covers the rest */
	pthread_cond_t changed;
	struct command *first, **last;
	struct command *running; /* forked and not yet reaped, by next_running */
	struct child *children;  /* likewise, those that are no commands */
	size_t threads;
	bool idle;     /* no child is left */
	bool stopping; /* nothing is started any more */
	bool over;     /* the reaper may end when idle */
	struct refusal refusals[REFUSALS];
	size_t refused;
};

/* --- the reaper --- */

/* With the lock held. */
static struct command *find_leader(struct commands *t, pid_t pid)
{
	for (struct command *c = t->running; c; c = c->next_running)
		if (c->pid == pid)
			return c;
	return NULL;
}

static void running_remove(struct commands *t, struct command *c)
{
	for (struct command **at = &t->running; *at; at = &(*at)->next_running)
		if (*at == c) {
			*at = c->next_running;
			return;
		}
}

/* True: the number is one of these. */
static bool reap_child(struct commands *t, pid_t pid)
{
	for (struct child **at = &t->children; *at; at = &(*at)->next) {
		struct child *child = *at;
		if (child->pid != pid)
			continue;
		{
			AUTO_UNLOCK(child->lock);
			child->ending(child);
			if (waitpid(pid, &child->wait_status, WNOHANG) != pid)
				return true;
			child->reaped = true;
			child->ended(child);
		}
		*at = child->next;
		child->release(child);
		return true;
	}
	return false;
}

static void reap(struct commands *t, pid_t pid)
{
	AUTO_UNLOCK(&t->lock);
	struct command *c = find_leader(t, pid);
	int status = 0;
	if (!c && reap_child(t, pid))
		return;
	if (!c) {
		waitpid(pid, &status, WNOHANG);
		return;
	}
	{
		AUTO_UNLOCK(&c->lock);
		if (waitpid(pid, &status, WNOHANG) != pid)
			return;
		command_leader_ended(c, status);
	}
	running_remove(t, c);
	commands_put(c);
}

static void *reaper_thread(void *arg)
{
	struct commands *t = arg;
	for (;;) {
		siginfo_t info = {.si_pid = 0};
		/* Looks without taking: the number stays the child's until the locks are held. */
		int err = waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) < 0 ? errno : 0;
		if (!err && info.si_pid > 0) {
			reap(t, info.si_pid);
			continue;
		}
		if (err != ECHILD)
			continue;
		AUTO_UNLOCK(&t->lock);
		t->idle = !t->running && !t->children;
		pthread_cond_broadcast(&t->changed);
		while (t->idle && !t->over)
			pthread_cond_wait(&t->changed, &t->lock);
		if (t->idle && t->over)
			return NULL;
	}
}

int commands_fork(struct command *c, const struct spawn *s, int *status)
{
	struct commands *t = c->server->commands;
	AUTO_UNLOCK(&t->lock);
	if (t->stopping)
		return -ESHUTDOWN;
	pthread_mutex_lock(&c->lock);
	int err = spawn_fork(s, &c->pid, status);
	pthread_mutex_unlock(&c->lock);
	if (err < 0)
		return err;
	/* The list holds a reference: a child that could not exec may outlive its record. */
	atomic_fetch_add(&c->references, 1);
	c->next_running = t->running;
	t->running = c;
	t->idle = false;
	pthread_cond_broadcast(&t->changed);
	return 0;
}

int commands_fork_child(struct commands *t, struct child *child, const struct spawn *s, int *status)
{
	AUTO_UNLOCK(&t->lock);
	if (t->stopping)
		return -ESHUTDOWN;
	pid_t pid;
	int err = spawn_fork(s, &pid, status);
	if (err < 0)
		return err;
	{
		AUTO_UNLOCK(child->lock);
		child->pid = pid;
		child->reaped = false;
	}
	child->next = t->children;
	t->children = child;
	t->idle = false;
	pthread_cond_broadcast(&t->changed);
	return 0;
}

/* --- the table (with the lock held where `t` is given without taking it) --- */

static struct command *table_find(struct commands *t, const char *id)
{
	for (struct command *c = t->first; c; c = c->next)
		if (strcmp(c->id, id) == 0)
			return c;
	return NULL;
}

static void table_add(struct commands *t, struct command *c)
{
	atomic_fetch_add(&c->references, 1);
	c->next = NULL;
	c->in_table = true;
	*t->last = c;
	t->last = &c->next;
}

/* The reference of the table is now the caller's. */
static void table_remove(struct commands *t, struct command *c)
{
	for (struct command **at = &t->first; *at; at = &(*at)->next)
		if (*at == c) {
			*at = c->next;
			if (t->last == &c->next)
				t->last = at;
			c->in_table = false;
			return;
		}
}

static void table_trim(struct commands *t, bool listed, size_t keep)
{
	for (;;) {
		struct command *oldest = NULL;
		uint64_t number = UINT64_MAX;
		size_t count = 0;
		for (struct command *c = t->first; c; c = c->next) {
			AUTO_UNLOCK(&c->lock);
			if (c->listed != listed || !c->ended)
				continue;
			count++;
			if (c->end_number < number) {
				number = c->end_number;
				oldest = c;
			}
		}
		if (count <= keep || !oldest)
			return;
		table_remove(t, oldest);
		commands_put(oldest);
	}
}

void commands_put(struct command *c)
{
	if (c && atomic_fetch_sub(&c->references, 1) == 1)
		command_free(c);
}

struct command *commands_find(struct commands *t, const char *id)
{
	AUTO_UNLOCK(&t->lock);
	struct command *c = table_find(t, id);
	if (c)
		atomic_fetch_add(&c->references, 1);
	return c;
}

int commands_forget(struct commands *t, const char *id)
{
	AUTO_UNLOCK(&t->lock);
	struct command *c = table_find(t, id);
	if (!c)
		return -ENOENT;
	if (!command_ended(c))
		return -EBUSY;
	table_remove(t, c);
	commands_put(c);
	return 0;
}

ssize_t commands_all(struct commands *t, struct command ***out)
{
	AUTO_UNLOCK(&t->lock);
	size_t count = 0, i = 0;
	for (struct command *c = t->first; c; c = c->next)
		count++;
	struct command **all = calloc(count + 1, sizeof(struct command *));
	if (!all)
		return -ENOMEM;
	for (struct command *c = t->first; c; c = c->next) {
		atomic_fetch_add(&c->references, 1);
		all[i++] = c;
	}
	*out = all;
	return (ssize_t)count;
}

/* Forgets refusals whose time is up, and the one of this id: true if there was one. */
static bool refusal_take(struct commands *t, const char *id)
{
	int64_t now = text_monotonic_ms();
	bool found = false;
	size_t kept = 0;
	for (size_t i = 0; i < t->refused; i++) {
		bool this_one = id && strcmp(t->refusals[i].id, id) == 0;
		if (this_one && t->refusals[i].until > now)
			found = true;
		if (this_one || t->refusals[i].until <= now)
			free(t->refusals[i].id);
		else
			t->refusals[kept++] = t->refusals[i];
	}
	t->refused = kept;
	return found;
}

int commands_refuse(struct commands *t, const char *id)
{
	AUTO_UNLOCK(&t->lock);
	refusal_take(t, id);
	if (t->refused == REFUSALS) {
		free(t->refusals[0].id);
		memmove(t->refusals, t->refusals + 1, --t->refused * sizeof *t->refusals);
	}
	char *copy = strdup(id);
	if (!copy)
		return -ENOMEM;
	t->refusals[t->refused++] =
		(struct refusal){.id = copy, .until = text_monotonic_ms() + REFUSE_MS};
	return 0;
}

/* Puts c into the table, or finds the one that is there (with a reference, in *there). */
static int table_enter(
	struct commands *t, struct command *c, enum commands_exists how, struct command **there)
{
	AUTO_UNLOCK(&t->lock);
	struct command *old = table_find(t, c->id);
	if (old && how == EXISTS_ATTACH) {
		atomic_fetch_add(&old->references, 1);
		*there = old;
		return 0;
	}
	if (t->stopping)
		return -ESHUTDOWN;
	if (refusal_take(t, c->id))
		return -ECANCELED;
	if (old && !command_ended(old))
		return -EBUSY;
	if (old) {
		table_remove(t, old);
		commands_put(old);
	}
	table_trim(t, true, KEEP_LISTED);
	table_trim(t, false, KEEP_UNLISTED);
	table_add(t, c);
	/* Its thread has a reference of its own. */
	atomic_fetch_add(&c->references, 1);
	t->threads++;
	int err = command_launch(c);
	if (err < 0) {
		atomic_fetch_sub(&c->references, 1);
		t->threads--;
		table_remove(t, c);
		atomic_fetch_sub(&c->references, 1);
	}
	return err;
}

int commands_start(struct commands *t, const struct command_spec *spec, enum commands_exists how,
	struct command **out, bool *attached)
{
	struct command *c = NULL, *there = NULL;
	int err = command_new(t->server, spec, &c);
	if (err < 0)
		return err;
	err = table_enter(t, c, how, &there);
	if (err < 0 || there) {
		commands_put(c);
		c = there;
	}
	if (err < 0)
		return err;
	if (attached)
		*attached = there != NULL;
	err = command_wait_started(c);
	if (err < 0) {
		AUTO_UNLOCK(&t->lock);
		if (c->in_table) {
			table_remove(t, c);
			commands_put(c);
		}
		commands_put(c);
		return err;
	}
	*out = c;
	return 0;
}

void commands_thread_ended(struct command *c)
{
	struct commands *t = c->server->commands;
	AUTO_UNLOCK(&t->lock);
	t->threads--;
	pthread_cond_broadcast(&t->changed);
	commands_put(c);
}

/* --- beginning and end --- */

int commands_new(struct server *server, struct commands **out)
{
	struct commands *t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	t->server = server;
	t->last = &t->first;
	t->idle = true;
	pthread_mutex_init(&t->lock, NULL);
	(void)timed_cond_init(&t->changed); /* CLOCK_MONOTONIC is always there */
	int err = pthread_create(&t->reaper, NULL, reaper_thread, t);
	if (err) {
		free(t);
		return -err;
	}
	*out = t;
	return 0;
}

/* Waits until no child and no thread is left, or the deadline. With the lock held. */
static bool wait_idle(struct commands *t, int64_t deadline_ms)
{
	while (!t->idle || t->threads)
		if (timed_cond_wait(&t->changed, &t->lock, deadline_ms) == -ETIMEDOUT)
			return t->idle && !t->threads;
	return true;
}

/* The groups too: a fork cannot escape these, as it can the list of /proc. With the lock held: no leader is reaped. */
static void kill_groups(struct commands *t)
{
	for (struct command *c = t->running; c; c = c->next_running)
		kill(-c->pid, SIGKILL);
	for (struct child *child = t->children; child; child = child->next)
		kill(-child->pid, SIGKILL);
}

void commands_stop(struct commands *t)
{
	AUTO_UNLOCK(&t->lock);
	t->stopping = true;
	if (!t->idle) {
		proc_signal_descendants(SIGTERM);
		proc_signal_descendants(SIGCONT);
	}
	int64_t now = text_monotonic_ms();
	if (wait_idle(t, now + STOP_TERM_MS))
		return;
	int64_t give_up = text_monotonic_ms() + STOP_KILL_MS;
	do {
		kill_groups(t);
		proc_signal_descendants(SIGKILL);
	} while (!wait_idle(t, text_monotonic_ms() + STOP_ROUND_MS) && text_monotonic_ms() < give_up);
}

void commands_free(struct commands *t)
{
	bool idle;
	{
		AUTO_UNLOCK(&t->lock);
		idle = t->idle && !t->threads;
		t->over = true;
		pthread_cond_broadcast(&t->changed);
	}
	/* Something could not be killed; its thread and the reaper still use the table, and the process ends now anyway. */
	if (!idle)
		return;
	pthread_join(t->reaper, NULL);
	while (t->first) {
		struct command *c = t->first;
		table_remove(t, c);
		commands_put(c);
	}
	for (size_t i = 0; i < t->refused; i++)
		free(t->refusals[i].id);
	pthread_cond_destroy(&t->changed);
	pthread_mutex_destroy(&t->lock);
	free(t);
}
