/*
 * Connections with what came over them: see ws_link.h.
 *
 * The log is a row of parts: bytes of messages, and an end after each connection. Parts have numbers that go on over all
 * connections; a reader's place is a number and an offset. The lock is taken under the websockets' (their events) and
 * under a channel's; none of their functions but websocket_get is called with it held.
 */
#include "ws_link.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "shown.h"

struct part {
	bool last; /* of its message */
	bool end;  /* of a connection; err tells how */
	int err;
	size_t n;
	char data[];
};

enum ws_state { WS_NEW, WS_CONNECTING, WS_OPEN, WS_CLOSED };

struct ws_reader {
	struct ws_reader *next;
	struct ws_link *link; /* a reference */
	bool lines;
	void (*wake)(void *arg);
	void *arg;

	/* under the link's lock */
	bool reading; /* it has asked: what it has not read is kept for it */
	uint64_t at;  /* part */
	size_t off;
	uint64_t told; /* the part whose end was told */
};

struct ws_link {
	atomic_uint refs;
	struct websocket_set *set;
	struct sandbox *sb; /* borrowed: an opening or the room holds it */
	char *path;
	bool once;

	pthread_mutex_t lock; /* covers all below */
	enum ws_state state;
	bool gone;           /* hung up */
	bool closing;        /* by us: however it ends, readers see an end */
	struct websocket *w; /* a reference; NULL: none, or being opened */
	bool refused;        /* the websocket was told that there is no room */
	uint16_t code;
	char *reason, *protocol;
	struct ws_reader *readers;

	struct part **parts; /* a row of count from head on */
	size_t head, count, capacity;
	uint64_t first;   /* number of the first */
	uint64_t current; /* where the newest connection begins */
	uint64_t read_to; /* the furthest place of any reader */
	bool cut;         /* the first part is not the beginning of a message */
	bool holed;       /* out of memory: what follows the log was lost */
	size_t bytes;
};

/* --- the log; with the lock held --- */

static struct part *part_at(struct ws_link *l, uint64_t at)
{
	return at < l->first || at - l->first >= l->count ? NULL
													  : l->parts[l->head + (size_t)(at - l->first)];
}

static void drop_first(struct ws_link *l)
{
	struct part *p = l->parts[l->head];

	l->cut = !p->last && !p->end;
	l->bytes -= sizeof(*p) + p->n;
	free(p);
	l->head++;
	l->count--;
	l->first++;
}

/* Nobody needs parts before this one. */
static uint64_t needed(struct ws_link *l)
{
	uint64_t at = l->read_to;
	bool any = false;

	for (struct ws_reader *r = l->readers; r; r = r->next) {
		if (r->reading && (!any || r->at < at)) {
			at = r->at;
			any = true;
		}
	}
	return at;
}

static bool log_has_room(struct ws_link *l)
{
	uint64_t need = needed(l);

	while (l->count && l->first < need && (l->once || l->bytes >= WS_KEEP))
		drop_first(l);
	return l->bytes < WS_KEEP;
}

static int log_add(struct ws_link *l, const struct part *head, const void *p, size_t n)
{
	if (l->head && l->head + l->count == l->capacity) {
		memmove(l->parts, l->parts + l->head, l->count * sizeof(*l->parts));
		l->head = 0;
	}
	if (l->head + l->count == l->capacity) {
		size_t capacity = l->capacity ? l->capacity * 2 : 16;
		struct part **parts = realloc(l->parts, capacity * sizeof(*parts));
		if (!parts)
			return -ENOMEM;
		l->parts = parts;
		l->capacity = capacity;
	}
	struct part *part = malloc(sizeof(*part) + n);
	if (!part)
		return -ENOMEM;
	*part = *head;
	part->n = n;
	if (n)
		memcpy(part->data, p, n);
	l->parts[l->head + l->count++] = part;
	l->bytes += sizeof(*part) + n;
	return 0;
}

static void wake_readers(struct ws_link *l)
{
	for (struct ws_reader *r = l->readers; r; r = r->next)
		r->wake(r->arg);
}

/* --- what the websocket tells --- */

static bool on_room(void *arg)
{
	struct ws_link *l = arg;
	AUTO_UNLOCK(&l->lock);

	l->refused = l->holed || !log_has_room(l);
	return !l->refused;
}

static void on_data(void *arg, bool text, const void *p, size_t n, bool last)
{
	struct ws_link *l = arg;
	struct part head = {.last = last};
	AUTO_UNLOCK(&l->lock);

	(void)text; /* what was sent shows which it is */
	l->holed = l->holed || log_add(l, &head, p, n) < 0;
	wake_readers(l);
}

static void on_sent(void *arg)
{
	struct ws_link *l = arg;
	AUTO_UNLOCK(&l->lock);

	wake_readers(l);
}

static void on_end(void *arg, const struct websocket_end *end)
{
	struct ws_link *l = arg;
	AUTO_UNLOCK(&l->lock);
	struct part head = {.end = true, .err = l->closing ? 0 : end->err};

	l->state = WS_CLOSED;
	l->code = end->code;
	if (*end->reason)
		l->reason = strdup(end->reason); /* NULL: none is shown */
	l->holed = l->holed || log_add(l, &head, "", 0) < 0;
	wake_readers(l);
}

static const struct websocket_events link_events = {
	.room = on_room, .data = on_data, .sent = on_sent, .end = on_end};

/* --- links --- */

int ws_link_new(struct websocket_set *set, struct sandbox *sb, const char *path, bool once,
	struct ws_link **out)
{
	struct ws_link *l = calloc(1, sizeof(*l));

	if (!l || !(l->path = strdup(path))) {
		free(l);
		return -ENOMEM;
	}
	pthread_mutex_init(&l->lock, NULL);
	atomic_init(&l->refs, 1);
	l->set = set;
	l->sb = sb;
	l->once = once;
	*out = l;
	return 0;
}

struct ws_link *ws_link_get(struct ws_link *l)
{
	atomic_fetch_add(&l->refs, 1);
	return l;
}

static void drop_websocket(struct websocket *w)
{
	if (!w)
		return;
	websocket_leave(w);
	websocket_put(w);
}

void ws_link_put(struct ws_link *l)
{
	if (atomic_fetch_sub(&l->refs, 1) > 1)
		return;
	drop_websocket(l->w);
	while (l->count)
		drop_first(l);
	free(l->parts);
	free(l->reason);
	free(l->protocol);
	free(l->path);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

/* The former connection is over and its end is in the log. *old is to be dropped without the lock. */
static int connect_begin(struct ws_link *l, struct call *c, struct websocket **old)
{
	AUTO_UNLOCK(&l->lock);

	if (l->gone)
		return call_fault(c, ENOENT, NULL, "it was removed");
	if (l->state == WS_CONNECTING || l->state == WS_OPEN)
		return call_fault(
			c, EBUSY, NULL, "it is connected; write `close` first, or make another directory");
	*old = steal(l->w);
	l->state = WS_CONNECTING;
	l->closing = l->refused = l->holed = false;
	l->code = 0;
	free(steal(l->reason));
	free(steal(l->protocol));
	l->current = l->first + l->count;
	return 0;
}

int ws_link_connect(struct ws_link *l, struct call *c, const struct websocket_spec *spec)
{
	struct websocket *old = NULL, *w = NULL;
	int err = connect_begin(l, c, &old);

	if (err)
		return err;
	drop_websocket(old);
	err = websocket_open(l->set, c, spec, &link_events, l, &w);
	pthread_mutex_lock(&l->lock);
	if (!err && l->gone)
		err = call_fault(c, ENOENT, NULL, "it was removed");
	if (err) {
		l->state = WS_CLOSED;
		l->code = WEBSOCKET_ABNORMAL;
		wake_readers(l);
	} else {
		l->w = w;
		if (l->state == WS_CONNECTING) /* it may have ended already */
			l->state = WS_OPEN;
		if (websocket_protocol(w))
			l->protocol = strdup(websocket_protocol(w)); /* NULL: it is not shown */
		bool resume = l->refused && log_has_room(l);
		pthread_mutex_unlock(&l->lock);
		if (resume)
			websocket_resume(w);
		return 0;
	}
	pthread_mutex_unlock(&l->lock);
	drop_websocket(w);
	return err;
}

/* New reference to the open connection, or NULL and why not. */
static struct websocket *link_websocket(struct ws_link *l, enum ws_state *state, uint16_t *code)
{
	AUTO_UNLOCK(&l->lock);

	*state = l->state;
	*code = l->code;
	return l->w && l->state == WS_OPEN ? websocket_get(l->w) : NULL;
}

int ws_link_send(struct ws_link *l, struct call *c, bool text, const void *p, size_t n, bool wait)
{
	enum ws_state state;
	uint16_t code;
	struct websocket *w = link_websocket(l, &state, &code);

	if (!w)
		return state == WS_CLOSED
				   ? call_fault(c, EPIPE, NULL, "the connection is closed (%u)", code)
				   : call_fault(c, ENOTCONN, NULL,
						 "it is not connected; write `connect PORT /PATH` to its ctl");
	int err = websocket_send(w, c, text, p, n, wait);
	websocket_put(w);
	return err == -EPIPE ? call_fault(c, EPIPE, NULL, "the connection is closed") : err;
}

bool ws_link_writable(struct ws_link *l)
{
	enum ws_state state;
	uint16_t code;
	struct websocket *w = link_websocket(l, &state, &code);

	if (!w)
		return true; /* a write fails at once */
	bool writable = websocket_writable(w);
	websocket_put(w);
	return writable;
}

int ws_link_close(struct ws_link *l, struct call *c, uint16_t code)
{
	struct websocket *w;
	{
		AUTO_UNLOCK(&l->lock);
		if (!l->w)
			return l->state == WS_CLOSED ? 0 : call_fault(c, ENOTCONN, NULL, "it is not connected");
		l->closing = l->closing || l->state != WS_CLOSED;
		w = websocket_get(l->w);
	}
	int err = websocket_close(w, c, code);
	websocket_put(w);
	return err;
}

void ws_link_hang_up(struct ws_link *l)
{
	struct websocket *w;
	{
		AUTO_UNLOCK(&l->lock);
		l->gone = true;
		l->closing = true;
		w = l->w ? websocket_get(l->w) : NULL;
		wake_readers(l);
	}
	if (!w)
		return;
	(void)websocket_close(w, NULL, WEBSOCKET_GOING_AWAY); /* it does not wait */
	websocket_put(w);
}

void ws_link_show(struct ws_link *l, struct buf *out)
{
	AUTO_UNLOCK(&l->lock);

	switch (l->state) {
	case WS_NEW:
		buf_str(out, "closed\n");
		break;
	case WS_CONNECTING:
		buf_str(out, "connecting\n");
		break;
	case WS_OPEN:
		buf_str(out, "open\n");
		break;
	case WS_CLOSED:
		buf_printf(out, "closed %u\n", l->code);
	}
	if (l->protocol)
		buf_printf(out, "protocol %s\n", l->protocol);
	if (!l->reason)
		return;
	buf_str(out, "reason ");
	shown_add(out, l->reason, strlen(l->reason), SHOWN_KEEP);
	buf_char(out, '\n');
}

/* --- readers --- */

int ws_reader_new(
	struct ws_link *l, bool lines, void (*wake)(void *arg), void *arg, struct ws_reader **out)
{
	struct ws_reader *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->link = ws_link_get(l);
	r->lines = lines;
	r->wake = wake;
	r->arg = arg;
	r->told = UINT64_MAX;
	AUTO_UNLOCK(&l->lock);
	r->next = l->readers;
	l->readers = r;
	*out = r;
	return 0;
}

/* The oldest message that is there whole. */
static void reader_begin(struct ws_reader *r)
{
	struct ws_link *l = r->link;
	bool cut = l->cut;

	r->reading = true;
	r->at = l->first;
	if (l->current > r->at) {
		r->at = l->current;
		cut = false;
	}
	for (struct part *p; cut && (p = part_at(l, r->at)) && !p->end; r->at++)
		cut = !p->last;
}

/* The next byte is not of this part any more. */
static void reader_step(struct ws_reader *r)
{
	r->at++;
	r->off = 0;
	if (r->at > r->link->read_to)
		r->link->read_to = r->at;
}

/* At an end: what is told. 1: nothing, the reader goes on behind it. */
static int reader_end(struct ws_reader *r, const struct part *p)
{
	bool again = r->told == r->at;

	r->told = r->at;
	if (!again)
		return p->err;
	if (r->link->state == WS_CLOSED && r->at + 1 == r->link->first + r->link->count)
		return 0;
	reader_step(r);
	return 1;
}

static size_t take(struct ws_reader *r, const struct part *p, char *to, size_t n)
{
	size_t left = p->n - r->off;

	n = n < left ? n : left;
	memcpy(to, p->data + r->off, n);
	r->off += n;
	return n;
}

/* As many lines as there are. */
static size_t read_lines(struct ws_reader *r, char *to, size_t n)
{
	size_t done = 0;
	struct part *p;

	while (done < n && (p = part_at(r->link, r->at)) && !p->end) {
		done += take(r, p, to + done, n - done);
		if (r->off < p->n || (p->last && done == n))
			break; /* the newline comes with the next read */
		if (p->last)
			to[done++] = '\n';
		reader_step(r);
	}
	return done;
}

/* Bytes of one message: all of it if it fits, so one that is not whole yet is waited for while there is room for more. */
static size_t read_message(struct ws_reader *r, char *to, size_t n)
{
	struct ws_link *l = r->link;
	struct part *p;
	size_t have = 0, done = 0;
	bool whole = false, last = false;

	for (uint64_t at = r->at; !whole && have < n && (p = part_at(l, at)); at++) {
		have += p->n - (at == r->at ? r->off : 0);
		whole = p->last || p->end;
	}
	if (!whole && have < n && l->state == WS_OPEN && l->bytes < WS_KEEP)
		return 0;
	while (!last && done < n && (p = part_at(l, r->at)) && !p->end) {
		done += take(r, p, to + done, n - done);
		if (r->off < p->n)
			break;
		last = p->last && done; /* an empty message has no byte to show */
		reader_step(r);
	}
	return done;
}

/* With the lock held. */
static ssize_t place_take(struct ws_reader *r, char *to, size_t n)
{
	struct ws_link *l = r->link;

	if (!r->reading)
		reader_begin(r);
	for (;;) {
		struct part *p = part_at(l, r->at);
		if (p && p->end) {
			int err = reader_end(r, p);
			if (err <= 0)
				return err;
			continue;
		}
		size_t got = r->lines ? read_lines(r, to, n) : read_message(r, to, n);
		if (got)
			return (ssize_t)got;
		p = part_at(l, r->at);
		if (p && p->end)
			continue;
		if (l->holed)
			return -ENOMEM;
		return l->gone && l->state != WS_OPEN && l->state != WS_CONNECTING ? 0 : -EAGAIN;
	}
}

/* The person's sentence of an end that was none. */
static void note_fault(struct ws_link *l, int err)
{
	struct call c;

	call_init(&c, 0);
	call_fault(&c, -err, NULL, "%s: the connection broke: %s", l->path,
		err == -EPROTO ? "the service broke the protocol" : strerror(-err));
	sandbox_note_fault(l->sb, &c.fault);
	call_destroy(&c);
}

ssize_t ws_reader_next(struct ws_reader *r, void *p, size_t n)
{
	struct ws_link *l = r->link;
	struct websocket *w = NULL;
	ssize_t got;
	{
		AUTO_UNLOCK(&l->lock);
		got = place_take(r, p, n);
		if (log_has_room(l) && l->refused && l->w) {
			l->refused = false;
			w = websocket_get(l->w);
		}
	}
	if (w) {
		websocket_resume(w);
		websocket_put(w);
	}
	if (got < 0 && got != -EAGAIN)
		note_fault(l, (int)got);
	return got;
}

void ws_reader_free(struct ws_reader *r)
{
	struct ws_link *l = r->link;
	struct websocket *w = NULL;
	{
		AUTO_UNLOCK(&l->lock);
		for (struct ws_reader **at = &l->readers; *at; at = &(*at)->next) {
			if (*at == r) {
				*at = r->next;
				break;
			}
		}
		/* It may have been the one for whom it was kept. */
		if (l->refused && log_has_room(l) && l->w) {
			l->refused = false;
			w = websocket_get(l->w);
		}
	}
	if (w) {
		websocket_resume(w);
		websocket_put(w);
	}
	free(r);
	ws_link_put(l);
}
