/* The table of sessions, and a session as seen from outside; see session.h. */
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "environment.h"
#include "json_make.h"
#include "session_internal.h"
#include "text.h"
#include "timed.h"

enum { INTERRUPT_GRACE_MS = 2000, DELETE_WAIT_MS = 5000, PLACE_WAIT_MS = 1000 };

struct sessions {
	struct server *server;
	pthread_mutex_t lock; /* covers the rest */
	struct session *first, **last;
	bool stopping;
};

/* --- one session --- */

struct session *session_get(struct session *s)
{
	if (s)
		atomic_fetch_add(&s->references, 1);
	return s;
}

void session_put(struct session *s)
{
	if (!s || atomic_fetch_sub(&s->references, 1) != 1)
		return;
	if (s->words >= 0)
		close(s->words);
	if (s->answers >= 0)
		close(s->answers);
	shell_answers_release(&s->told);
	proc_set_release(&s->left);
	buf_release(&s->environment);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s->older);
	free(s->cwd);
	free(s->id);
	free(s);
}

static bool is_directory(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Where it begins. A directory that is not there becomes HOME, as clients know it. */
static char *first_cwd(const struct session *s, const char *cwd)
{
	AUTO_BUF b = BUF_INIT;
	if (!cwd || *cwd != '/')
		buf_str(&b, s->server->workspace);
	if (cwd && *cwd)
		buf_printf(&b, "%s%s", *cwd == '/' ? "" : "/", cwd);
	if (buf_error(&b) < 0)
		return NULL;
	if (is_directory(b.data))
		return buf_steal(&b);
	return strdup(is_directory("/root") ? "/root" : s->server->workspace);
}

static int session_new(struct server *server, const struct session_spec *spec, struct session **out)
{
	struct session *s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	atomic_init(&s->references, 1);
	s->server = server;
	s->timeout_ms = spec->timeout_ms;
	s->words = s->answers = -1;
	s->last = &s->first;
	s->id = strdup(spec->id);
	s->cwd = first_cwd(s, spec->cwd);
	pthread_mutex_init(&s->lock, NULL);
	session_no_shell(s);
	(void)timed_cond_init(&s->changed); /* CLOCK_MONOTONIC is always there */
	int err = s->id && s->cwd ? 0 : -ENOMEM;
	if (!err)
		err = environment_make(&s->environment, server, NULL, s->cwd, spec->env);
	if (err < 0) {
		session_put(s);
		return err;
	}
	*out = s;
	return 0;
}

const char *session_id(const struct session *s)
{
	return s->id;
}

int64_t session_timeout_ms(const struct session *s)
{
	return s->timeout_ms;
}

bool session_is_deleted(struct session *s)
{
	AUTO_UNLOCK(&s->lock);
	return s->deleted;
}

/* An idle shell tells its variables right behind the end of a command: they may be under way. With the lock held, let go meanwhile. */
static void await_environment(struct session *s)
{
	int64_t deadline = text_monotonic_ms() + PLACE_WAIT_MS;
	while (s->here && !s->first && session_hears(s) && s->told.number &&
		   s->told.environment_number != s->told.number) {
		AUTO_FD int answers = fcntl(s->answers, F_DUPFD_CLOEXEC, 3);
		int64_t left = deadline - text_monotonic_ms();
		if (answers < 0 || left <= 0)
			break;
		pthread_mutex_unlock(&s->lock);
		struct pollfd p = {.fd = answers, .events = POLLIN};
		(void)poll(&p, 1, (int)left); /* whatever it says, the state is looked at again */
		pthread_mutex_lock(&s->lock);
	}
}

int session_place(struct session *s, struct buf *cwd, struct buf *env)
{
	AUTO_UNLOCK(&s->lock);
	await_environment(s);
	session_note_place(s);
	buf_str(cwd, s->cwd);
	buf_add(env, s->environment.data, s->environment.size);
	return buf_error(cwd) < 0 ? -ENOMEM : buf_error(env);
}

int session_state(struct session *s, struct session_state *out)
{
	AUTO_UNLOCK(&s->lock);
	session_note_place(s);
	*out = (struct session_state){.ended = s->ended && !s->here,
		.exit_code = s->exit_code,
		.pid = s->here ? s->shell.pid : 0,
		.cwd = strdup(s->cwd)};
	for (struct command *c = s->first; c; c = c->next_queued)
		out->commands++;
	return out->cwd ? 0 : -ENOMEM;
}

int session_interrupt(struct session *s)
{
	struct command *c;
	{
		AUTO_UNLOCK(&s->lock);
		c = s->first;
		if (c)
			atomic_fetch_add(&c->references, 1);
	}
	int err = c ? command_cancel(c, INTERRUPT_GRACE_MS) : -ESRCH;
	commands_put(c);
	return err;
}

int session_kill(struct session *s)
{
	AUTO_UNLOCK(&s->lock);
	await_environment(s); /* for the next shell */
	session_note_place(s);
	if (!s->here)
		return -ESRCH;
	/* What the command started goes with it; what runs in the background since earlier stays. */
	struct proc_set set = {NULL, 0, 0};
	if (s->first && s->number)
		proc_signal_below(&set, s->shell.pid, s->older, s->older_count, 0, 0);
	/* The shell first: it is not to tell the end of the command as if that had been one. */
	session_kill_shell(s);
	proc_signal_below(&set, 0, NULL, 0, SIGKILL, 0);
	proc_set_release(&set);
	return 0;
}

/* --- the table --- */

int sessions_new(struct server *server, struct sessions **out)
{
	struct sessions *t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	t->server = server;
	t->last = &t->first;
	pthread_mutex_init(&t->lock, NULL);
	*out = t;
	return 0;
}

/* With the table's lock held. */
static struct session **place_of(struct sessions *t, const char *id)
{
	struct session **at = &t->first;
	while (*at && strcmp((*at)->id, id) != 0)
		at = &(*at)->next;
	return at;
}

/* The reference of the table is now the caller's. With the table's lock held. */
static struct session *take_out(struct sessions *t, struct session **at)
{
	struct session *s = *at;
	*at = s->next;
	if (!*at)
		t->last = at;
	return s;
}

static bool is_over(struct session *s)
{
	AUTO_UNLOCK(&s->lock);
	return s->ended && !s->here && !s->first;
}

static void mark_deleted(struct session *s)
{
	AUTO_UNLOCK(&s->lock);
	s->deleted = true;
	for (struct command *c = s->first; c; c = c->next_queued)
		command_wake(c);
	session_end_shell(s);
}

/* Ends what it has started beside its shell, and waits until nothing is left of it. */
static void end_all(struct session *s)
{
	struct command **all;
	int64_t deadline = text_monotonic_ms() + DELETE_WAIT_MS;
	ssize_t count = commands_all(s->server->commands, &all);
	for (ssize_t i = 0; i < count; i++)
		if (all[i]->session == s)
			(void)command_cancel(all[i], 0); /* one that has ended needs none */
	for (ssize_t i = 0; i < count; i++) {
		if (all[i]->session == s)
			(void)command_wait_dead(all[i], deadline);
		commands_put(all[i]);
	}
	if (count >= 0)
		free(all);
	AUTO_UNLOCK(&s->lock);
	while (s->here && timed_cond_wait(&s->changed, &s->lock, deadline) != -ETIMEDOUT)
		continue;
}

int sessions_create(struct sessions *t, const struct session_spec *spec, struct session **out)
{
	struct session *s, *old = NULL;
	int err = session_new(t->server, spec, &s);
	if (err < 0)
		return err;
	{
		AUTO_UNLOCK(&t->lock);
		struct session **at = place_of(t, spec->id);
		if (t->stopping)
			err = -ESHUTDOWN;
		else if (*at && !is_over(*at))
			err = -EEXIST;
		else if (*at)
			old = take_out(t, at);
		if (!err) {
			*t->last = session_get(s);
			t->last = &s->next;
		}
	}
	if (old) {
		mark_deleted(old);
		end_all(old);
		session_put(old);
	}
	if (err < 0)
		session_put(s);
	else
		*out = s;
	return err;
}

struct session *sessions_find(struct sessions *t, const char *id)
{
	AUTO_UNLOCK(&t->lock);
	return session_get(*place_of(t, id));
}

int sessions_open(struct sessions *t, const char *id, struct session **out)
{
	struct session_spec spec = {.id = id, .timeout_ms = -1};
	int err = -EEXIST;
	while (err == -EEXIST) {
		*out = sessions_find(t, id);
		if (*out)
			return 0;
		err = sessions_create(t, &spec, out);
	}
	return err;
}

int sessions_delete(struct sessions *t, const char *id)
{
	struct session *s;
	{
		AUTO_UNLOCK(&t->lock);
		struct session **at = place_of(t, id);
		s = *at ? take_out(t, at) : NULL;
	}
	if (!s)
		return -ENOENT;
	mark_deleted(s);
	end_all(s);
	session_put(s);
	return 0;
}

struct json_object *sessions_list(struct sessions *t)
{
	struct json_object *list = json_object_new_array();
	AUTO_UNLOCK(&t->lock);
	for (struct session *s = t->first; s; s = s->next)
		json_append(list, text_json_str(s->id));
	return list;
}

void sessions_stop(struct sessions *t)
{
	AUTO_UNLOCK(&t->lock);
	t->stopping = true;
	for (struct session *s = t->first; s; s = s->next) {
		AUTO_UNLOCK(&s->lock);
		/* Without its words it ends by itself once it is idle; TERM, which it ignores, would take longer. */
		if (s->words >= 0)
			close(s->words);
		s->words = -1;
		if (s->here && !s->first)
			session_kill_shell(s);
	}
}

void sessions_free(struct sessions *t)
{
	if (!t)
		return;
	while (t->first)
		session_put(take_out(t, &t->first));
	pthread_mutex_destroy(&t->lock);
	free(t);
}
