/*
 * follow, follow.json and wait: streams over what one process says, from its first byte to its end.
 *
 * Each opening has a feed of its own (feed.h) and formats when it is read. One that is opened while the process is
 * being started waits for that; where nobody starts it, it is ESRCH. A link that broke is not seen here; a sandbox that is gone is ESTALE, and
 * `unknown` in wait.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "feed.h"
#include "log_event.h"
#include "processes.h"

enum follow_mode { FOLLOW_TEXT, FOLLOW_JSON, FOLLOW_WAIT };

struct process_follow {
	struct process_follow *next; /* of a draft's, under the set's lock */
	struct process *process;
	struct sandbox *sandbox; /* borrowed: the opening holds its node */
	struct ctl_stream *stream;
	enum follow_mode mode;
	struct feed *feed;
	/* under the set's lock */
	bool removed; /* there will be no start */
	int failed;   /* of the start; 0: it was removed */

	/* The reader's. */
	struct buf out;
	size_t at;
	struct log_event_state events;
	struct process_settle settle;
	bool ended;
	int err; /* of the end */
};

static void follow_wake(void *arg)
{
	ctl_stream_wake(((struct process_follow *)arg)->stream);
}

void process_follow_begin(struct process *p, const char *id, int err)
{
	while (p->followers) {
		struct process_follow *f = p->followers;

		p->followers = f->next;
		f->next = NULL;
		f->failed = id ? feed_attach(f->feed, id, 0) : err;
		f->removed = !id || f->failed < 0;
		follow_wake(f);
	}
}

/* The end of one that has ended already, for wait. */
static void follow_put_exit(struct process_follow *f, bool known, int code)
{
	if (known)
		buf_printf(&f->out, "%d\n", code);
	else
		buf_str(&f->out, "unknown\n");
	f->ended = true;
}

/* Begins to read, or waits for the start. */
static int follow_begin(const struct ctl_ref *ref, struct call *c, struct process_follow *f)
{
	struct process *p = f->process;
	AUTO_PROCESS_INFO info = {0};
	int err = process_look(ref, c, p, &info);

	if (!err && f->mode == FOLLOW_WAIT && !info.running) {
		follow_put_exit(f, info.has_exit, info.exit_code);
		return 0;
	}
	if (!err)
		return feed_attach(f->feed, p->id, f->mode == FOLLOW_WAIT ? info.size[SPOOL_BOTH] : 0);
	if (err != -ENOENT)
		return err;
	if (process_lost(ref->sandbox, p)) {
		if (f->mode == FOLLOW_WAIT)
			follow_put_exit(f, false, 0);
		else
			return call_fault(
				c, ESTALE, NULL, "the sandbox it ran in is gone; its output went with it");
		return 0;
	}
	AUTO_UNLOCK(&p->set->lock);
	if (p->started_here && !p->starting) /* started since we asked */
		return feed_attach(f->feed, p->id, 0);
	if (!p->starting)
		return process_not_started(c, p);
	f->next = p->followers;
	p->followers = f;
	return 0;
}

static void follow_close(void *cursor)
{
	struct process_follow *f = cursor;

	pthread_mutex_lock(&f->process->set->lock);
	for (struct process_follow **at = &f->process->followers; *at; at = &(*at)->next) {
		if (*at == f) {
			*at = f->next;
			break;
		}
	}
	pthread_mutex_unlock(&f->process->set->lock);
	process_settle_leave(f->process->set, &f->settle);
	feed_close(f->feed);
	buf_release(&f->out);
	log_event_release(&f->events);
	free(f);
}

static int follow_open(const struct ctl_ref *ref, struct call *c, struct ctl_stream *s,
	enum follow_mode mode, void **cursor)
{
	struct process_follow *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->process = ref->object;
	f->sandbox = ref->sandbox;
	f->stream = s;
	f->mode = mode;
	f->settle.wake = follow_wake;
	f->settle.arg = f;
	int err = feed_new(ref->sandbox, follow_wake, f, &f->feed);
	if (err) {
		free(f);
		return err;
	}
	log_event_init(&f->events, f->process->id);
	err = follow_begin(ref, c, f);
	if (err) {
		follow_close(f);
		return err;
	}
	*cursor = f;
	return 0;
}

/* The person's sentence of an end that is not known. */
static void follow_note_fault(struct process_follow *f, const struct feed_item *item)
{
	static const char *const names[] = {"follow", "follow.json", "wait"};
	struct call c;

	call_init(&c, 0);
	call_fault(&c, -item->err, NULL,
		"processes/%s/%s: the link broke while it ran (%s); its exit code is unknown",
		f->process->id, names[f->mode], item->reason ? item->reason : strerror(-item->err));
	sandbox_note_fault(f->sandbox, &c.fault);
	call_destroy(&c);
}

static void follow_item(struct process_follow *f, const struct feed_item *item)
{
	if (item->kind == FEED_EXIT || item->kind == FEED_LOST) {
		f->ended = true;
		/* Whoever reads of its end must not meet files of before it. */
		process_settle_ask(f->process->set, &f->settle);
		if (item->kind == FEED_LOST)
			follow_note_fault(f, item);
	}
	if (f->mode == FOLLOW_WAIT) {
		if (f->ended)
			follow_put_exit(f, item->kind == FEED_EXIT, item->code);
	} else {
		if (f->mode == FOLLOW_JSON)
			log_event_put(&f->events, item, &f->out);
		else if (item->kind == FEED_DATA)
			buf_add(&f->out, item->p, item->n);
		if (item->kind == FEED_LOST)
			f->err = item->err;
		/* Bytes that the sandbox no longer keeps are a hole, and a hole is never silent. */
		if (item->kind == FEED_GAP && f->mode == FOLLOW_TEXT)
			buf_printf(&f->out, "\nlost %llu\n", (unsigned long long)item->gap);
	}
}

static ssize_t follow_next(void *cursor, void *p, size_t n)
{
	struct process_follow *f = cursor;

	if (f->ended && !process_settled(f->process->set, &f->settle))
		return -EAGAIN;
	while (f->at == f->out.size) {
		struct feed_item item;

		buf_clear(&f->out);
		f->at = 0;
		if (f->ended)
			return f->err;
		int got = feed_next(f->feed, &item);
		if (got == -EAGAIN) {
			AUTO_UNLOCK(&f->process->set->lock);
			if (!f->removed)
				return -EAGAIN;
			f->ended = true;
			f->err = f->failed;
			if (f->mode == FOLLOW_WAIT && !f->err)
				follow_put_exit(f, false, 0);
			continue;
		}
		if (got <= 0)
			return got;
		follow_item(f, &item);
		if (buf_error(&f->out))
			return -ENOMEM;
		if (f->ended && !process_settled(f->process->set, &f->settle))
			return -EAGAIN;
	}
	size_t left = f->out.size - f->at;
	if (n > left)
		n = left;
	memcpy(p, f->out.data + f->at, n);
	f->at += n;
	return (ssize_t)n;
}

static int follow_open_text(
	const struct ctl_ref *ref, struct call *c, struct ctl_stream *s, void **cursor)
{
	return follow_open(ref, c, s, FOLLOW_TEXT, cursor);
}

static int follow_open_json(
	const struct ctl_ref *ref, struct call *c, struct ctl_stream *s, void **cursor)
{
	return follow_open(ref, c, s, FOLLOW_JSON, cursor);
}

static int follow_open_wait(
	const struct ctl_ref *ref, struct call *c, struct ctl_stream *s, void **cursor)
{
	return follow_open(ref, c, s, FOLLOW_WAIT, cursor);
}

const struct ctl_stream_ops process_follow_stream = {follow_open_text, follow_next, follow_close};
const struct ctl_stream_ops process_follow_json_stream = {
	follow_open_json, follow_next, follow_close};
const struct ctl_stream_ops process_wait_stream = {follow_open_wait, follow_next, follow_close};
