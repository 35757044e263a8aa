/*
 * code/NAME/run: code in, what a person at an interpreter would see of it out.
 *
 * All that one opening writes is one run. Writing alone waits for its end; in an opening for both the first read sends it, and the
 * reads follow what it prints. Each run has a thread (runs.h) that sees it to its end, whoever still waits: its end is told when nothing
 * cached before it is served any more.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "code_room.h"
#include "kinds.h"
#include "runs.h"

/* A shell shows the error of an open, not that of a close: so what the sandbox lacks is said here. */
int code_begin(const struct ctl_ref *ref, struct call *c)
{
	int err = ctl_exec_begin(ref, c);
	return err ? err : code_context_begin(ref->object, ref->sandbox, c);
}

/* --- a run, from start to end --- */

struct work {
	struct sandbox *sb; /* borrowed: as long as the thread */
	struct code_context *context;
	struct code_run *run;
	struct buf code;
	bool tell; /* who reads sees an errno alone: its sentence goes to `error` */
};

static void work_free(struct work *w)
{
	code_context_put(w->context);
	code_run_put(w->run);
	buf_release(&w->code);
	free(w);
}

static int work_once(struct work *w, struct call *c)
{
	bool begun;
	int err = code_context_begin(w->context, w->sb, c);
	if (err)
		return err;
	AUTO_FREE char *id = code_context_id(w->context, &begun);
	struct code_spec spec = {.context = id,
		.code = w->code.data ? w->code.data : "",
		.size = w->code.size,
		.timeout_ms = code_context_timeout(w->context)};
	return id ? code_run_do(w->run, c, &spec) : begun ? -ENOMEM : -ENOENT;
}

static void work_thread(struct ctl_runs *rs, struct call *c, void *arg)
{
	struct work *w = arg;
	(void)rs;
	int err = work_once(w, c);
	if (err == -ENOENT) {
		fault_clear(&c->fault);
		err = code_context_lost(w->context, c);
		if (!err)
			err = work_once(w, c);
	}
	/* Nobody cancels this call but the end of the sandbox. */
	if (err == -EINTR)
		err = call_fault(c, ESTALE, NULL, "the sandbox ended while it ran");
	else if (err)
		(void)call_fault(c, -err, NULL, "%s", strerror(-err)); /* where there is none yet */
	sandbox_invalidate(w->sb);
	if (err && w->tell) {
		AUTO_BUF name = BUF_INIT;
		buf_printf(&name, "code/%s/run: ", code_context_name(w->context));
		call_fault_prefix(c, name.data ? name.data : "");
		sandbox_note_fault(w->sb, &c->fault);
	}
	code_run_settle(w->run, err, &c->fault);
	work_free(w);
}

/* 0 and *out new: it is on its way, after all that was written before. */
static int start(const struct ctl_ref *ref, struct call *c, const char *code, size_t n, bool tell,
	struct code_run **out)
{
	struct ctl_runs *rs = ctl_runs_of(ref->sandbox);
	struct code_run *r;
	int err = rs ? sandbox_barrier(ref->sandbox, c) : -ENOMEM;
	if (!err)
		err = code_run_new(ref->sandbox, &r);
	if (err)
		return err;
	struct work *w = calloc(1, sizeof *w);
	if (w) {
		*w = (struct work){.sb = ref->sandbox,
			.context = code_context_get(ref->object),
			.run = code_run_get(r),
			.tell = tell};
		buf_add(&w->code, code, n);
		err = buf_error(&w->code);
		code_context_set_last(ref->object, r);
		if (!err)
			err = ctl_runs_thread(rs, work_thread, w);
		if (err) {
			code_run_settle(r, err, NULL);
			work_free(w);
		}
	} else {
		err = -ENOMEM;
	}
	if (err)
		code_run_put(r);
	else
		*out = r;
	return err;
}

/* --- an opening --- */

struct talk {
	struct ctl_ref ref; /* of the node, which the opening holds */
	struct ctl_talk *talk;
	pthread_mutex_t lock; /* covers what follows */
	struct code_run *run; /* NULL: none, or all of it was read */
	struct spool_watch *watch;
	uint64_t at;
};

static int talk_open(const struct ctl_ref *ref, struct call *c, struct ctl_talk *t, void **state)
{
	struct talk *k = calloc(1, sizeof *k);
	(void)c;
	if (!k)
		return -ENOMEM;
	k->ref = *ref;
	k->talk = t;
	pthread_mutex_init(&k->lock, NULL);
	*state = k;
	return 0;
}

static void on_said(void *talk)
{
	ctl_talk_wake(talk);
}

static int talk_line(void *state, struct call *c, const char *text, size_t n)
{
	struct talk *k = state;
	struct code_run *r;
	{
		AUTO_UNLOCK(&k->lock);
		if (k->run)
			return call_fault(
				c, EBUSY, NULL, "code runs; read to its end first, or open run once more");
	}
	int err = start(&k->ref, c, text, n, true, &r);
	if (err)
		return err;
	AUTO_UNLOCK(&k->lock);
	k->run = r;
	k->at = 0;
	k->watch = spool_watch(code_run_said(r), on_said, k->talk);
	return k->watch ? 0 : -ENOMEM;
}

/* Bytes past those that are lost are read on with: a person sees what there is. */
static ssize_t read_said(struct code_run *r, void *p, size_t n, uint64_t *at)
{
	uint64_t lost;
	return spool_read_on(code_run_said(r), SPOOL_BOTH, p, n, at, NULL, &lost);
}

static int run_result(struct code_run *r)
{
	struct call c;
	call_init(&c, 0);
	int err = code_run_wait(r, &c); /* it is settled */
	call_destroy(&c);
	return err;
}

static ssize_t talk_next(void *state, void *p, size_t n)
{
	struct talk *k = state;
	AUTO_UNLOCK(&k->lock);
	if (!k->run)
		return 0;
	bool settled = code_run_settled(k->run) && spool_ended(code_run_said(k->run));
	ssize_t got = read_said(k->run, p, n, &k->at);
	if (got)
		return got;
	if (!settled)
		return -EAGAIN;
	struct code_run *r = steal(k->run);
	int err = run_result(r);
	spool_unwatch(code_run_said(r), steal(k->watch));
	code_run_put(r);
	return err;
}

static void talk_close(void *state)
{
	struct talk *k = state;
	if (k->run) {
		if (k->watch)
			spool_unwatch(code_run_said(k->run), k->watch);
		if (!code_run_settled(k->run))
			code_run_interrupt(k->run);
		code_run_put(k->run);
	}
	pthread_mutex_destroy(&k->lock);
	free(k);
}

static int talk_document(void *state, struct call *c, const char *text, size_t n)
{
	struct talk *k = state;
	struct code_run *r;
	int err = start(&k->ref, c, text, n, false, &r);
	if (err)
		return err;
	err = code_run_wait(r, c);
	if (err == -EINTR)
		code_run_interrupt(r);
	code_run_put(r);
	return err;
}

const struct ctl_talk_ops code_talk_ops = {.open = talk_open,
	.line = talk_line,
	.next = talk_next,
	.close = talk_close,
	.document = talk_document,
	.whole = true};

/* --- reading alone: what the newest run has said so far --- */

struct view {
	struct code_run *run; /* NULL: there was none */
	uint64_t at;
};

static int view_open(const struct ctl_ref *ref, struct call *c, struct ctl_stream *s, void **cursor)
{
	struct view *v = calloc(1, sizeof *v);
	(void)c;
	(void)s; /* it never waits, so nothing wakes it */
	if (!v)
		return -ENOMEM;
	v->run = code_context_last(ref->object);
	*cursor = v;
	return 0;
}

static ssize_t view_next(void *cursor, void *p, size_t n)
{
	struct view *v = cursor;
	return v->run ? read_said(v->run, p, n, &v->at) : 0;
}

static void view_close(void *cursor)
{
	struct view *v = cursor;
	code_run_put(v->run);
	free(v);
}

const struct ctl_stream_ops code_stream_ops = {
	.open = view_open, .next = view_next, .close = view_close};
