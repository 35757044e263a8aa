/*
 * git: clones into the workspace. Writing alone waits for the end; in an opening for both, the write starts and
 * reads follow it.
 *
 * Owns, per sandbox, a table of runs of its own (they are in nobody's runs/, and their scripts nowhere to be read) and the newest
 * clone, which is what a fresh reader gets. A clone's directory appears whole: git works beside it, and what it leaves there when
 * it is killed is removed by a second command.
 *
 * Locks: a clone's covers what its opening and its thread share; wakes go to the opening with it held. The state's is a leaf.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "cleanup.h"
#include "env.h"
#include "git.h"
#include "git_line.h"
#include "runs.h"

enum {
	SAID_MAX = 256 << 10, /* of git's output, looked at for the reason */
	SHOWN_MAX = 64 << 10  /* and given to who only reads: each opening has it in memory */
};

struct git_clone {
	_Atomic unsigned references;
	struct sandbox *sb; /* borrowed: as long as an opening or a thread of runs.h has the clone */
	struct ctl_runs *runs;
	struct run_table *table; /* lives as long as run is held */
	struct run *run;
	struct git_request request;
	struct buf stage;
	pthread_mutex_t lock;  /* covers what follows */
	struct ctl_talk *talk; /* whose reads follow it; NULL: nobody's, or closed */
	struct spool_watch *watch;
	bool settled; /* its end may be told, err is how */
	int err;
};

struct git_state {
	struct run_table *table;
	pthread_mutex_t lock;     /* covers what follows */
	struct git_clone *newest; /* a reference */
};

/* --- life --- */

static struct git_clone *clone_get(struct git_clone *g)
{
	atomic_fetch_add(&g->references, 1);
	return g;
}

static void clone_put(struct git_clone *g)
{
	if (!g || atomic_fetch_sub(&g->references, 1) != 1)
		return;
	if (g->run) {
		ctl_runs_abandon(g->run);
		run_put(g->run);
	}
	git_request_release(&g->request);
	buf_release(&g->stage);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

static void clone_drop(struct git_clone **g)
{
	clone_put(*g);
}
#define AUTO_CLONE __attribute__((cleanup(clone_drop))) struct git_clone

static void *state_make(struct sandbox *sb)
{
	struct git_state *s = calloc(1, sizeof *s);
	if (!s || run_table_new(sb, &s->table) < 0) {
		free(s);
		return NULL;
	}
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

static void state_stop(void *data)
{
	run_table_close(((struct git_state *)data)->table);
}

static void state_release(void *data)
{
	struct git_state *s = data;
	clone_put(s->newest);
	run_table_free(s->table);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static struct git_state *state_of(struct sandbox *sb)
{
	static const char key;
	return sandbox_attach(sb, &key, state_make, state_stop, state_release);
}

static struct git_clone *state_newest(struct git_state *s)
{
	AUTO_UNLOCK(&s->lock);
	return s->newest ? clone_get(s->newest) : NULL;
}

static void state_set_newest(struct git_state *s, struct git_clone *g)
{
	struct git_clone *old;
	{
		AUTO_UNLOCK(&s->lock);
		old = s->newest;
		s->newest = clone_get(g);
	}
	clone_put(old);
}

static int clone_new(const struct ctl_ref *ref, struct call *c, struct git_state *s,
	const char *line, size_t n, struct git_clone **out)
{
	AUTO_CLONE *g = calloc(1, sizeof *g);
	unsigned char random[6];
	char id[2 * sizeof random + 1];
	if (!g)
		return -ENOMEM;
	atomic_init(&g->references, 1);
	pthread_mutex_init(&g->lock, NULL);
	g->sb = ref->sandbox;
	g->table = s->table;
	g->runs = ctl_runs_of(ref->sandbox);
	int err = g->runs ? git_request_parse(c, line, n, &g->request) : -ENOMEM;
	if (err)
		return err;
	if (getrandom(random, sizeof random, 0) != sizeof random)
		return -EIO;
	for (size_t i = 0; i < sizeof random; i++)
		snprintf(id + 2 * i, 3, "%02x", random[i]);
	err = git_request_stage(&g->request, id, &g->stage);
	if (!err)
		err = run_new(s->table, &g->run);
	if (!err)
		*out = steal(g);
	return err;
}

/* --- from start to end --- */

/* 0: it runs. After 0 and -EINTR its end is to be seen to. */
static int clone_start(struct git_clone *g, struct call *c)
{
	AUTO_BUF script = BUF_INIT;
	AUTO_BUF input = BUF_INIT;
	int err = git_request_script(&g->request, g->stage.data, &script, &input);
	if (err)
		return err;
	char **env = NULL;
	err = ctl_env_pairs(g->sb, NULL, &env);
	struct run_spec spec = {.command = script.data,
		.size = script.size,
		.env = (const char *const *)env,
		.input = input.data,
		.input_size = input.size,
		.timeout_ms = g->request.timeout_ms};
	if (!err)
		err = sandbox_barrier(g->sb, c);
	if (err)
		ctl_runs_abandon(g->run);
	else
		err = run_start(g->run, c, &spec);
	ctl_env_free_pairs(env);
	return err;
}

/* The last of what is there now, up to max bytes, NUL-terminated. *before: how many bytes stand before it. */
static int read_last(struct spool *spool, size_t max, struct buf *out, uint64_t *before)
{
	uint64_t size = spool_size(spool, SPOOL_BOTH), at = size > max ? size - max : 0, lost;
	*before = at;
	while (out->size < max) {
		size_t want = max - out->size < (64 << 10) ? max - out->size : 64 << 10;
		char *p = buf_reserve(out, want);
		ssize_t got = p ? spool_read_on(spool, SPOOL_BOTH, p, want, &at, NULL, &lost) : -ENOMEM;
		if (got < 0)
			return (int)got;
		if (got == 0)
			break;
		out->size += (size_t)got;
	}
	buf_char(out, 0);
	return buf_error(out);
}

/*
 * The last of what git has said, up to max bytes and from the beginning of a line, with the place where it worked called by the
 * name it was to get. NUL-terminated. *before: how many bytes are left out.
 */
static int clone_said(struct git_clone *g, size_t max, struct buf *out, uint64_t *before)
{
	AUTO_BUF raw = BUF_INIT;
	int err = read_last(run_spool(g->run), max, &raw, before);
	if (err)
		return err;
	const char *p = raw.data, *end = raw.data + raw.size - 1;
	/* A cut line may begin within the name of that place. Progress ends its lines with \r. */
	size_t cut = *before ? strcspn(p, "\r\n") : 0;
	if (cut && p + cut < end) {
		*before += cut + 1;
		p += cut + 1;
	}
	for (;;) {
		const char *stage = memmem(p, (size_t)(end - p), g->stage.data, g->stage.size);
		buf_add(out, p, (size_t)((stage ? stage : end) - p));
		if (!stage)
			break;
		buf_str(out, g->request.dir);
		p = stage + g->stage.size;
	}
	buf_add(out, "", 0);
	return buf_error(out);
}

/* One that was killed could not remove what it had begun. */
static void clone_sweep(struct git_clone *g, struct call *c)
{
	AUTO_BUF script = BUF_INIT;
	struct run *r = NULL;
	buf_str(&script, "rm -rf ");
	buf_shell_quote(&script, g->stage.data);
	if (buf_error(&script) || run_new(g->table, &r) < 0)
		return;
	struct run_spec spec = {.command = script.data, .size = script.size};
	struct call own;
	call_init(&own, 0); /* what it fails with is not what the clone failed with */
	if (run_start(r, &own, &spec) == 0)
		(void)run_wait(r, c); /* nothing more can be done */
	call_destroy(&own);
	run_put(r);
}

static int clone_fault(struct git_clone *g, struct call *c)
{
	AUTO_BUF said = BUF_INIT;
	AUTO_BUF why = BUF_INIT;
	uint64_t before;
	bool timed_out = false;
	int code = run_exit(g->run, &timed_out);
	if (timed_out)
		return call_fault(c, ETIMEDOUT, "GIT_NETWORK_ERROR",
			"the clone was ended after %lld s; timeout= waits longer",
			(long long)g->request.timeout_ms / 1000);
	int err = clone_said(g, SAID_MAX, &said, &before);
	if (err)
		return err;
	err = git_errno(said.data ? said.data : "", code, &why);
	return call_fault(c, err,
		err == EACCES         ? "GIT_AUTH_FAILED"
		: err == EHOSTUNREACH ? "GIT_NETWORK_ERROR"
							  : "GIT_CLONE_FAILED",
		"%s", why.data ? why.data : "git failed");
}

/* Waits for the end and sees to it. 0, -EINTR (it runs on: nothing was seen to), or how it failed, with a fault. */
static int clone_finish(struct git_clone *g, struct call *c)
{
	int err = run_wait(g->run, c);
	if (err == -EINTR && run_state(g->run) == RUN_RUNNING)
		return err;
	bool done = !err && run_exit(g->run, NULL) == 0;
	if (!done && err != -ESTALE)
		clone_sweep(g, c);
	if (!err && !done)
		err = clone_fault(g, c);
	sandbox_invalidate(g->sb);
	AUTO_UNLOCK(&g->lock);
	g->settled = true;
	g->err = err;
	return err;
}

/* A thread of runs.h: sees a clone to its end for an opening that reads, or after an interrupt. */
static void clone_thread(struct ctl_runs *rs, struct call *c, void *arg)
{
	struct git_clone *g = arg;
	(void)rs;
	int err = clone_finish(g, c);
	pthread_mutex_lock(&g->lock);
	bool told = g->talk != NULL;
	g->settled = true;
	g->err = err;
	if (g->talk)
		ctl_talk_wake(g->talk);
	pthread_mutex_unlock(&g->lock);
	if (told && err && err != -EINTR) {
		call_fault_prefix(c, "git: ");
		sandbox_note_fault(g->sb, &c->fault);
	}
	clone_put(g);
}

static int clone_finish_behind(struct git_clone *g)
{
	int err = ctl_runs_thread(g->runs, clone_thread, clone_get(g));
	if (err) {
		run_cancel(g->run);
		clone_put(g);
	}
	return err;
}

/* --- writing alone --- */

int git_call(
	const struct ctl_ref *ref, struct call *c, const char *line, size_t n, struct buf *answer)
{
	struct git_state *s = state_of(ref->sandbox);
	AUTO_CLONE *g = NULL;
	int err = s ? clone_new(ref, c, s, line, n, &g) : -ENOMEM;
	if (err)
		return err;
	state_set_newest(s, g);
	err = clone_start(g, c);
	if (!err)
		err = clone_finish(g, c);
	else if (err != -EINTR)
		return err;
	if (err == -EINTR && run_has_begun(g->run)) {
		run_cancel(g->run);
		(void)clone_finish_behind(g); /* who asked is gone */
	}
	if (!err)
		buf_printf(answer, "dir %s\n", g->request.dir);
	return err;
}

int git_show(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	struct git_state *s = state_of(ref->sandbox);
	AUTO_CLONE *g = s ? state_newest(s) : NULL;
	AUTO_BUF said = BUF_INIT;
	uint64_t before = 0;
	(void)c;
	int err = g ? clone_said(g, SHOWN_MAX, &said, &before) : s ? 0 : -ENOMEM;
	if (err)
		return err;
	if (before)
		buf_printf(out, "(%llu bytes before this)\n", (unsigned long long)before);
	buf_add(out, said.data ? said.data : "", said.size);
	return buf_error(out);
}

/* --- conversations --- */

struct git_talk {
	struct ctl_ref ref; /* of the node, which the opening holds */
	struct ctl_talk *talk;
	pthread_mutex_t lock;    /* covers what follows */
	struct git_clone *clone; /* a reference; NULL: no line yet, or all was told */
	uint64_t at;
};

static int talk_open(const struct ctl_ref *ref, struct call *c, struct ctl_talk *t, void **state)
{
	struct git_talk *k = calloc(1, sizeof *k);
	(void)c;
	if (!k)
		return -ENOMEM;
	k->ref = *ref;
	k->talk = t;
	pthread_mutex_init(&k->lock, NULL);
	*state = k;
	return 0;
}

static void on_output(void *talk)
{
	ctl_talk_wake(talk);
}

/* From here on its reads follow g. */
static int talk_follow(struct git_talk *k, struct git_clone *g)
{
	{
		AUTO_UNLOCK(&g->lock);
		g->talk = k->talk;
		g->watch = spool_watch(run_spool(g->run), on_output, k->talk);
	}
	int err = clone_finish_behind(g);
	if (err)
		return err;
	AUTO_UNLOCK(&k->lock);
	k->clone = clone_get(g);
	k->at = 0;
	return 0;
}

/* Its end is nobody's to tell any more. */
static void talk_unfollow(struct git_clone *g)
{
	AUTO_UNLOCK(&g->lock);
	g->talk = NULL;
	if (g->watch)
		spool_unwatch(run_spool(g->run), steal(g->watch));
}

static int talk_line(void *state, struct call *c, const char *text, size_t n)
{
	struct git_talk *k = state;
	struct git_state *s = state_of(k->ref.sandbox);
	AUTO_CLONE *g = NULL;
	size_t blank = 0;
	while (blank < n && strchr(" \t\r", text[blank]))
		blank++;
	if (blank == n || text[blank] == '#')
		return 0;
	{
		AUTO_UNLOCK(&k->lock);
		if (k->clone)
			return call_fault(
				c, EBUSY, NULL, "a clone runs; read to its end first, or open git once more");
	}
	int err = s ? clone_new(&k->ref, c, s, text, n, &g) : -ENOMEM;
	if (err)
		return err;
	state_set_newest(s, g);
	err = clone_start(g, c);
	if (!err)
		err = talk_follow(k, g);
	else if (err == -EINTR && run_has_begun(g->run)) {
		run_cancel(g->run);
		(void)clone_finish_behind(g); /* who asked is gone */
	}
	if (err)
		talk_unfollow(g);
	return err;
}

static ssize_t talk_next(void *state, void *p, size_t n)
{
	struct git_talk *k = state;
	AUTO_UNLOCK(&k->lock);
	uint64_t lost;
	if (!k->clone)
		return 0;
	ssize_t got = spool_read_on(run_spool(k->clone->run), SPOOL_BOTH, p, n, &k->at, NULL, &lost);
	if (got)
		return got;
	int err;
	{
		AUTO_UNLOCK(&k->clone->lock);
		if (!k->clone->settled)
			return -EAGAIN;
		err = k->clone->err;
	}
	/* What came between the look at the spool and the end. */
	got = spool_read_on(run_spool(k->clone->run), SPOOL_BOTH, p, n, &k->at, NULL, &lost);
	if (got)
		return got;
	talk_unfollow(k->clone);
	clone_put(steal(k->clone));
	return err;
}

static void talk_close(void *state)
{
	struct git_talk *k = state;
	if (k->clone) {
		talk_unfollow(k->clone);
		if (run_state(k->clone->run) == RUN_RUNNING)
			run_cancel(k->clone->run);
		clone_put(k->clone);
	}
	pthread_mutex_destroy(&k->lock);
	free(k);
}

const struct ctl_talk_ops git_talk_ops = {
	.open = talk_open, .line = talk_line, .next = talk_next, .close = talk_close};
