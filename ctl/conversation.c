/*
 * Conversations with runs: see conversation.h.
 *
 * The protocol of an opening for reading and writing, as `exec 3<>exec; read n <&3; echo 'make test' >&3; cat <&3` needs it:
 *  - before a line, reads give the number of the run that the next line will start, once ("7\n"), then 0. (exec only.)
 *  - a line starts its run and the write returns; reads give its output as it comes, then 0 once, when the run has
 *    ended and nothing cached before is served any more.
 *  - then it is as before the first line: the next run's number, once.
 *  - a line written while runs are still being told waits for its turn: the runs of a conversation run one after the
 *    other and are told in order, each with its own end. A start that fails then is the read's error at that place.
 *  - the last close cancels what runs and drops what waits.
 * A number that was told and never used stays reserved until the close.
 *
 * Each conversation that has had a line has one thread of runs.h: it starts what waits and sees runs to their end. It
 * holds the conversation, not the opening: after the close only the end of the cancelled run is waited for.
 *
 * Lock order: the conversation's, then a run's, a spool's and the thread's call's. Wakes go to the opening with the lock held,
 * and a spool's watcher is added and removed with it, so that none comes after the close.
 */
#include "conversation.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "env.h"
#include "kinds.h"
#include "sessions.h"

enum { QUEUE_MAX = 256, KEPT_MAX = 16 };

enum item_state { ITEM_WAITING, ITEM_STARTING, ITEM_RUNNING, ITEM_OVER };

struct item {
	struct item *next;
	enum item_state state;
	struct conversation_request request;
	struct run *run; /* a reference */
	struct spool_watch *watch;
	void *reader;
	int err; /* of a start that failed after the write had returned */
};

struct conversation {
	_Atomic unsigned references; /* the opening's and the thread's */
	const struct conversation_format *format;
	struct ctl_runs *runs;  /* a reference */
	struct sandbox *sb;     /* borrowed: as long as the opening, and as the thread */
	_Atomic bool attention; /* something changed since the thread looked */
	pthread_mutex_t lock;   /* covers what follows */
	struct ctl_talk *talk;  /* NULL once closed */
	struct item *first, **last;
	unsigned count;
	bool threaded;        /* the thread was started */
	struct call *thread;  /* its call, while it looks */
	struct run *reserved; /* the next line's, or the document's */
	bool reserved_begun;  /* a document's first byte has come */
	char number[32];      /* what is left to tell of it */
	struct run *
		kept[KEPT_MAX]; /* the newest that were told, so that runs/N stays for the one who read N */
	unsigned kept_at;
};

static void request_release(struct conversation_request *q)
{
	buf_release(&q->command);
	buf_release(&q->input);
	free(q->cwd);
	free(q->session);
	ctl_env_free_pairs(q->env);
	*q = (struct conversation_request){0};
}

static void item_free(struct conversation *v, struct item *it)
{
	request_release(&it->request);
	if (it->reader)
		v->format->reader_free(it->reader);
	if (it->run) {
		ctl_runs_abandon(it->run);
		run_put(it->run);
	}
	free(it);
}

static void conversation_put(struct conversation *v)
{
	if (atomic_fetch_sub(&v->references, 1) != 1)
		return;
	while (v->first) {
		struct item *it = v->first;
		v->first = it->next;
		item_free(v, it);
	}
	for (size_t i = 0; i < KEPT_MAX; i++)
		if (v->kept[i])
			run_put(v->kept[i]);
	if (v->reserved)
		run_put(v->reserved);
	pthread_mutex_destroy(&v->lock);
	ctl_runs_put(v->runs);
	free(v);
}

int conversation_open(const struct ctl_ref *ref, struct ctl_talk *t,
	const struct conversation_format *format, void **state)
{
	struct ctl_runs *rs = ctl_runs_at(ref);
	struct conversation *v = rs ? calloc(1, sizeof *v) : NULL;
	if (!v)
		return -ENOMEM;
	atomic_init(&v->references, 1);
	v->format = format;
	v->runs = ctl_runs_get(rs);
	v->sb = ref->sandbox;
	v->talk = t;
	v->last = &v->first;
	pthread_mutex_init(&v->lock, NULL);
	*state = v;
	return 0;
}

/* A session has the environment that it was made with; everything else has what env says, in *env. */
static int prepare_item(
	struct conversation *v, struct call *c, const struct conversation_request *q, char ***env)
{
	const char *session = ctl_runs_session(v->runs);
	if (session && q->session && strcmp(session, q->session) != 0)
		return call_fault(c, EINVAL, NULL,
			"\"sessionId\": these are the files of session %s; write to sessions/%s/%s, or leave "
			"it "
			"out",
			session, q->session, v->format->name);
	if (session || q->session)
		return ctl_session_ready(v->sb, c, session ? session : q->session, !session);
	return ctl_env_pairs(v->sb, (const char *const *)q->env, env);
}

static int start_item(struct conversation *v, struct call *c, struct item *it)
{
	const struct conversation_request *q = &it->request;
	const char *session = ctl_runs_session(v->runs);
	char **env = NULL;
	if (v->format->json)
		ctl_runs_set_json(v->runs, it->run);
	int err = prepare_item(v, c, q, &env);
	if (err) {
		ctl_runs_abandon(it->run);
		return err;
	}
	struct run_spec spec = {.command = q->command.data ? q->command.data : "",
		.size = q->command.size,
		.cwd = q->cwd,
		.env = (const char *const *)(env ? env : q->env),
		.input = q->input.data,
		.input_size = q->input.size,
		.timeout_ms = q->timeout_ms,
		.session = session ? session : q->session};
	err = ctl_runs_start(v->runs, c, it->run, &spec);
	ctl_env_free_pairs(env);
	return err;
}

/* What a read fails with in the middle of a run, which has no call of its own. */
static void note_lost(struct sandbox *sb, const struct conversation_format *format, struct run *r,
	int err, uint64_t lost)
{
	struct call c;
	unsigned long long number = run_number(r);
	call_init(&c, 0);
	int refused = spool_refused(run_spool(r));
	if (err == -ENODATA && refused)
		(void)call_fault(&c, ENODATA, NULL,
			"%s: %llu bytes of the output of run %llu were not kept: %s; make room on the disk of "
			"~/.cache",
			format->name, (unsigned long long)lost, number, strerror(refused));
	else if (err == -ENODATA)
		(void)call_fault(&c, ENODATA, NULL,
			"%s: %llu bytes of the output of run %llu are no longer kept; the next read goes on "
			"behind "
			"them, so does tail -c +%llu runs/%llu/logs; -o output-max= keeps more, "
			"if the disk of the sandbox has room",
			format->name, (unsigned long long)lost, number,
			(unsigned long long)spool_first(run_spool(r), SPOOL_BOTH) + 1, number);
	else
		(void)call_fault(&c, -err, NULL, "%s: the output of run %llu cannot be read: %s",
			format->name, number, strerror(-err));
	sandbox_note_fault(sb, &c.fault);
	call_destroy(&c);
}

/* --- the thread --- */

static void wake_locked(struct conversation *v)
{
	atomic_store(&v->attention, true);
	if (v->thread)
		call_wake(v->thread);
	if (v->talk)
		ctl_talk_wake(v->talk);
}

static void on_output(void *talk)
{
	ctl_talk_wake(talk);
}

/* The first that is not over. */
static struct item *item_active(struct conversation *v)
{
	struct item *it = v->first;
	while (it && it->state == ITEM_OVER)
		it = it->next;
	return it;
}

/* What a start came to, with the lock held: if it runs, the opening hears of its output. */
static void item_started(struct conversation *v, struct item *it)
{
	it->state = ITEM_RUNNING;
	if (v->talk)
		it->watch = spool_watch(run_spool(it->run), on_output, v->talk);
	wake_locked(v);
}

static void thread_start_item(struct conversation *v, struct call *c, struct item *it)
{
	it->state = ITEM_STARTING;
	pthread_mutex_unlock(&v->lock);
	int err = start_item(v, c, it);
	if (err && err != -EINTR) {
		call_fault_prefix(c, ": ");
		call_fault_prefix(c, v->format->name);
		sandbox_note_fault(v->sb, &c->fault);
		fault_clear(&c->fault);
	}
	pthread_mutex_lock(&v->lock);
	if (err && err != -EINTR) {
		it->err = err;
		it->state = ITEM_OVER;
		wake_locked(v);
		return;
	}
	item_started(v, it);
	/* Closed while it started: nobody else would end it. */
	if (!v->talk)
		run_cancel(it->run);
}

static void thread_end_item(struct conversation *v, struct call *c, struct item *it)
{
	pthread_mutex_unlock(&v->lock);
	int err = ctl_runs_finish(v->runs, c, it->run);
	if (err && err != -EINTR) {
		call_fault_prefix(c, ": ");
		call_fault_prefix(c, v->format->name);
		sandbox_note_fault(v->sb, &c->fault);
	}
	fault_clear(&c->fault);
	pthread_mutex_lock(&v->lock);
	spool_unwatch(run_spool(it->run), steal(it->watch));
	it->err = err == -EINTR ? 0 : err;
	it->state = ITEM_OVER;
	wake_locked(v);
}

static bool has_attention(void *arg)
{
	return atomic_load(&((struct conversation *)arg)->attention);
}

/* Waits on its call, so that the sandbox's end wakes it too. */
static void conversation_thread(struct ctl_runs *rs, struct call *c, void *arg)
{
	struct conversation *v = arg;
	(void)rs;
	pthread_mutex_lock(&v->lock);
	v->thread = c;
	for (;;) {
		atomic_store(&v->attention, false);
		struct item *it = item_active(v);
		bool closed = !v->talk || call_cancelled(c);
		if (closed && (!it || it->state == ITEM_WAITING))
			break;
		if (it && it->state == ITEM_WAITING)
			thread_start_item(v, c, it);
		else if (it && it->state == ITEM_RUNNING)
			thread_end_item(v, c, it);
		else {
			pthread_mutex_unlock(&v->lock);
			(void)call_wait(c, has_attention, v, -1); /* cancelled: seen at the top */
			pthread_mutex_lock(&v->lock);
		}
	}
	v->thread = NULL;
	pthread_mutex_unlock(&v->lock);
	conversation_put(v);
}

/* With the lock held. */
static int ensure_thread(struct conversation *v)
{
	if (v->threaded)
		return 0;
	atomic_fetch_add(&v->references, 1);
	int err = ctl_runs_thread(v->runs, conversation_thread, v);
	if (err)
		atomic_fetch_sub(&v->references, 1); /* never the last */
	v->threaded = err == 0;
	return err;
}

/* --- lines --- */

/* The run of the next request, with the lock held. */
static int take_reserved(struct conversation *v, struct run **out)
{
	*v->number = 0;
	if (v->reserved) {
		*out = steal(v->reserved);
		v->reserved_begun = false;
		return 0;
	}
	return run_new(ctl_runs_table(v->runs), out);
}

/* Takes the last reference to an item that was added and could not be started. */
static void item_withdraw(struct conversation *v, struct item *it)
{
	struct item **at = &v->first;
	while (*at != it)
		at = &(*at)->next;
	*at = it->next;
	if (!*at)
		v->last = at;
	v->count--;
	item_free(v, it);
	wake_locked(v);
}

static int add_item(struct conversation *v, struct item *it)
{
	if (v->count >= QUEUE_MAX)
		return -EBUSY;
	int err = ensure_thread(v);
	if (!err)
		err = take_reserved(v, &it->run);
	if (err)
		return err;
	run_mark_begun(it->run);
	it->reader = v->format->reader_new(it->run);
	if (!it->reader)
		return -ENOMEM;
	*v->last = it;
	v->last = &it->next;
	v->count++;
	return 0;
}

int conversation_line(void *state, struct call *c, const char *text, size_t n)
{
	struct conversation *v = state;
	struct item *it = calloc(1, sizeof *it);
	if (!it)
		return -ENOMEM;
	int err = v->format->parse(c, text, n, true, &it->request);
	if (err) {
		item_free(v, it);
		return err < 0 ? err : 0;
	}
	pthread_mutex_lock(&v->lock);
	bool idle = !item_active(v);
	err = add_item(v, it);
	if (err) {
		pthread_mutex_unlock(&v->lock);
		item_free(v, it);
		return err == -EBUSY ? call_fault(c, EBUSY, NULL,
								   "%d commands of this conversation wait already", QUEUE_MAX)
							 : err;
	}
	if (!idle) {
		wake_locked(v);
		pthread_mutex_unlock(&v->lock);
		return 0;
	}
	/* Nothing runs: it starts at once, and a failure is this write's. */
	it->state = ITEM_STARTING;
	pthread_mutex_unlock(&v->lock);
	err = start_item(v, c, it);
	if (err == -EINTR) {
		run_cancel(it->run);
		ctl_runs_finish_behind(v->runs, it->run); /* may tell the kernel: without our lock */
	}
	pthread_mutex_lock(&v->lock);
	if (err)
		item_withdraw(v, it);
	else
		item_started(v, it);
	pthread_mutex_unlock(&v->lock);
	return err;
}

/* --- documents --- */

int conversation_first(void *state, struct call *c)
{
	struct conversation *v = state;
	(void)c;
	AUTO_UNLOCK(&v->lock);
	int err = v->reserved ? 0 : run_new(ctl_runs_table(v->runs), &v->reserved);
	if (!err) {
		run_mark_begun(v->reserved);
		v->reserved_begun = true;
	}
	return err;
}

int conversation_document(void *state, struct call *c, const char *text, size_t n)
{
	struct conversation *v = state;
	struct item it = {0};
	int err = v->format->parse(c, text, n, false, &it.request);
	if (!err) {
		AUTO_UNLOCK(&v->lock);
		err = take_reserved(v, &it.run);
	}
	if (!err)
		err = start_item(v, c, &it);
	/* What it was given may be long, and it may run long. */
	request_release(&it.request);
	if (!err)
		err = ctl_runs_finish(v->runs, c, it.run);
	if (err == -EINTR && it.run) {
		run_cancel(it.run);
		ctl_runs_finish_behind(v->runs, it.run);
	}
	if (it.run) {
		ctl_runs_abandon(it.run);
		run_put(it.run);
	}
	return err < 0 ? err : 0;
}

/* --- reads --- */

/* With the lock held: the number of the next run, once, then the end. */
static ssize_t next_number(struct conversation *v, void *p, size_t n)
{
	if (!v->format->tells_number)
		return 0;
	if (!v->reserved) {
		int err = run_new(ctl_runs_table(v->runs), &v->reserved);
		if (err)
			return err;
		snprintf(
			v->number, sizeof v->number, "%llu\n", (unsigned long long)run_number(v->reserved));
	}
	size_t left = strlen(v->number);
	if (n > left)
		n = left;
	memcpy(p, v->number, n);
	memmove(v->number, v->number + n, left - n + 1);
	return (ssize_t)n;
}

/* The first run has been told to its end, with the lock held. */
static void item_told(struct conversation *v)
{
	struct item *it = v->first;
	struct run **place = &v->kept[v->kept_at++ % KEPT_MAX];
	v->first = it->next;
	if (!v->first)
		v->last = &v->first;
	v->count--;
	if (*place)
		run_put(*place);
	*place = steal(it->run);
	item_free(v, it);
}

ssize_t conversation_next(void *state, void *p, size_t n)
{
	struct conversation *v = state;
	AUTO_UNLOCK(&v->lock);
	struct item *it = v->first;
	if (!it)
		return next_number(v, p, n);
	if (it->state == ITEM_WAITING || it->state == ITEM_STARTING)
		return -EAGAIN;
	uint64_t lost = 0;
	bool started = run_has_begun(it->run);
	ssize_t got =
		started ? v->format->reader_next(it->reader, it->state == ITEM_OVER, p, n, &lost) : 0;
	if (got == 0 && it->state == ITEM_OVER) {
		/* An end that is not known is no end of file; JSON has said it in its last event. */
		int err = v->format->json && started ? 0 : it->err;
		item_told(v);
		return err;
	}
	if (got < 0 && got != -EAGAIN)
		note_lost(v->sb, v->format, it->run, (int)got, lost);
	return got == 0 ? -EAGAIN : got;
}

void conversation_close(void *state)
{
	struct conversation *v = state;
	pthread_mutex_lock(&v->lock);
	v->talk = NULL;
	struct item *it = item_active(v);
	struct run *run = it && it->state == ITEM_RUNNING ? run_get(it->run) : NULL;
	if (run)
		spool_unwatch(run_spool(run), steal(it->watch));
	wake_locked(v);
	struct run *unsent = v->reserved_begun ? steal(v->reserved) : NULL;
	pthread_mutex_unlock(&v->lock);
	if (unsent) {
		ctl_runs_abandon(unsent);
		run_put(unsent);
	}
	if (run) {
		run_cancel(run);
		run_put(run);
	}
	conversation_put(v);
}

/* --- views --- */

struct conversation_view {
	const struct conversation_format *format;
	struct sandbox *sb;    /* borrowed: the opening holds it */
	struct ctl_runs *runs; /* likewise */
	struct run *run;
	void *reader;
};

int conversation_view_open(
	const struct ctl_ref *ref, const struct conversation_format *format, void **cursor)
{
	struct ctl_runs *rs = ctl_runs_at(ref);
	AUTO_FREE struct conversation_view *w = calloc(1, sizeof *w);
	if (!rs || !w)
		return -ENOMEM;
	struct run *r = format->json ? ctl_runs_get_json(rs) : run_table_last(ctl_runs_table(rs));
	void *reader = r ? format->reader_new(r) : NULL;
	if (r && !reader) {
		run_put(r);
		return -ENOMEM;
	}
	*w = (struct conversation_view){format, ref->sandbox, rs, r, reader};
	*cursor = steal(w);
	return 0;
}

ssize_t conversation_view_next(void *view, void *p, size_t n)
{
	struct conversation_view *w = view;
	uint64_t lost = 0;
	if (!w->run || !run_has_begun(w->run))
		return 0;
	ssize_t got = w->format->reader_next(w->reader, ctl_runs_settled(w->runs, w->run), p, n, &lost);
	if (got < 0 && got != -EAGAIN)
		note_lost(w->sb, w->format, w->run, (int)got, lost);
	return got == -EAGAIN ? 0 : got;
}

void conversation_view_close(void *view)
{
	struct conversation_view *w = view;
	if (w->run) {
		w->format->reader_free(w->reader);
		run_put(w->run);
	}
	free(w);
}
