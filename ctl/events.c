/*
 * events: the file, read alone or opened for both. What changes under workspace/, from the open on; how it comes here is
 * events_feed.c's.
 */
#include "events.h"

#include <errno.h>
#include <json-c/json.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "events_feed.h"
#include "shown.h"

/* --- reading alone --- */

static void wake_stream(void *stream)
{
	ctl_stream_wake(stream);
}

static int stream_open(
	const struct ctl_ref *ref, struct call *c, struct ctl_stream *s, void **cursor)
{
	struct events_request q;
	struct events *e = NULL;
	int err = events_request_parse(c, "", 0, &q);
	if (err)
		return err;
	err = events_open(ref->sandbox, c, &q, wake_stream, s, &e);
	events_request_release(&q);
	*cursor = e;
	return err;
}

static ssize_t stream_next(void *cursor, void *p, size_t n)
{
	return events_take(cursor, p, n);
}

static void stream_close(void *cursor)
{
	events_close(cursor);
}

const struct ctl_stream_ops events_stream_ops = {stream_open, stream_next, stream_close};

/* --- for both --- */

struct events_talk {
	struct sandbox *sb; /* borrowed: the opening holds its node */
	struct ctl_talk *talk;
	pthread_mutex_t lock;  /* covers what follows; not held while it is armed */
	bool asked;            /* the first line has come */
	int refused;           /* why the newest was not taken: nothing will come */
	struct events *events; /* NULL: not armed yet */
};

static void wake_talk(void *talk)
{
	ctl_talk_wake(talk);
}

static int talk_open(const struct ctl_ref *ref, struct call *c, struct ctl_talk *t, void **state)
{
	struct events_talk *k = calloc(1, sizeof *k);
	(void)c;
	if (!k)
		return -ENOMEM;
	k->sb = ref->sandbox;
	k->talk = t;
	pthread_mutex_init(&k->lock, NULL);
	*state = k;
	return 0;
}

static void put_version(struct buf *out, struct json_object *version, struct json_object *status)
{
	const char *v = json_object_get_string(version), *s = json_object_get_string(status);
	if (!v || !s)
		return;
	buf_str(out, "version ");
	shown_add(out, v, strlen(v), SHOWN_KEEP);
	buf_char(out, ' ');
	shown_add(out, s, strlen(s), SHOWN_KEEP);
	buf_char(out, '\n');
}

/* `version V unchanged|changed|resync`, before any change. It is asked for when all is armed: nothing falls between. */
static int tell_version(
	struct sandbox *sb, struct call *c, const struct events_request *q, struct events *e)
{
	struct json_object *body = events_request_check(q), *reply = NULL, *version, *status;
	AUTO_BUF line = BUF_INIT;
	if (!body)
		return -ENOMEM;
	int err = sandbox_api(sb, c, "POST", "/api/watch/check", body, &reply);
	json_object_put(body);
	if (err)
		return err;
	if (json_object_object_get_ex(reply, "version", &version) &&
		json_object_object_get_ex(reply, "status", &status))
		put_version(&line, version, status);
	json_object_put(reply);
	/* What came meanwhile stands behind it. */
	err = events_put_first(e, &line);
	return err == -EPROTO ? call_fault(c, EPROTO, NULL, "the server's answer makes no sense") : err;
}

static int talk_arm(struct events_talk *k, struct call *c, const char *text, size_t n)
{
	struct events_request q;
	struct events *e = NULL;
	int err = events_request_parse(c, text, n, &q);
	if (err)
		return err;
	err = events_open(k->sb, c, &q, wake_talk, k->talk, &e);
	if (!err && q.asks)
		err = tell_version(k->sb, c, &q, e);
	events_request_release(&q);
	if (err) {
		if (e)
			events_close(e);
		return err;
	}
	AUTO_UNLOCK(&k->lock);
	k->events = e;
	ctl_talk_wake(k->talk);
	return 0;
}

static int talk_line(void *state, struct call *c, const char *text, size_t n)
{
	struct events_talk *k = state;
	{
		AUTO_UNLOCK(&k->lock);
		if (k->asked)
			return call_fault(
				c, EBUSY, NULL, "it is watching already; open events once more for another watch");
		k->asked = true;
	}
	int err = talk_arm(k, c, text, n);
	AUTO_UNLOCK(&k->lock);
	k->asked = !err;
	k->refused = err == -EINTR ? 0 : err;
	if (k->refused)
		ctl_talk_wake(k->talk);
	return err;
}

static ssize_t talk_next(void *state, void *p, size_t n)
{
	struct events_talk *k = state;
	AUTO_UNLOCK(&k->lock);
	if (k->events)
		return events_take(k->events, p, n);
	return k->refused ? k->refused : -EAGAIN;
}

static void talk_close(void *state)
{
	struct events_talk *k = state;
	if (k->events)
		events_close(k->events);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

static int talk_first(void *state, struct call *c)
{
	(void)state;
	return call_fault(c, EINVAL, NULL,
		"who only writes hears nothing; open it for reading and writing, as exec 3<>events does");
}

static int talk_document(void *state, struct call *c, const char *text, size_t n)
{
	(void)text;
	(void)n;
	return talk_first(state, c);
}

const struct ctl_talk_ops events_talk_ops = {.open = talk_open,
	.line = talk_line,
	.next = talk_next,
	.close = talk_close,
	.first = talk_first,
	.document = talk_document};
