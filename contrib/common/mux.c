/*
 * Many connections over one carrier; the protocol is in mux.h.
 *
 * Owns the connections (mux_connection.h) and what is on its way to the carrier. One thread's: no locks, nothing at file scope. May
 * not touch what the carrier is made of.
 *
 * What is kept is bounded: for each socket what the window lets the other side send; for the carrier OUT_FULL bytes and a few frames,
 * since a socket is read only when the carrier, the other side's window and the flight all have room for what comes. Control frames
 * are not held back by the flight, else two sides with a full one would wait for each other's ACK for ever.
 */
#include "mux.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <zlib.h>

#include "buf.h"
#include "mux_connection.h"

enum {
	IN_SIZE = 64 << 10,
	OUT_FULL = 64 << 10, /* no socket is read while so much waits for the carrier */
	OUT_MAX = 1 << 20,   /* only a peer that opens without end gets us there */
	TURN_MAX = 4 << 20,  /* read from the carrier before sockets have their turn */
	CREDIT_STEP = MUX_WINDOW / 4,
	ACK_STEP = MUX_FLIGHT / 8,
	ACCEPT_PAUSE_MS = 100 /* when descriptors or memory are short */
};

enum { POLL_CARRIER, POLL_STOP, POLL_LISTENER, POLL_CONNECTIONS };

struct mux {
	const struct mux_spec *spec;
	struct mux_connection *connections[MUX_CONNECTIONS];
	struct pollfd polled[POLL_CONNECTIONS + MUX_CONNECTIONS];
	unsigned count;  /* of connections */
	unsigned turn;   /* whose socket is read first */
	uint32_t newest; /* number of the newest connection */
	uint32_t sequence_out, sequence_in;
	struct buf out; /* to the carrier, from out_at */
	size_t out_at;
	uint64_t queued;       /* bytes ever put into out */
	uint64_t acked;        /* of them, by the other side's word */
	uint64_t arrived;      /* bytes ever read from the carrier */
	uint64_t arrived_told; /* of them, in our last ACK */
	int64_t sent_ms,
		heard_ms;      /* when the carrier last took something; when the last whole frame came */
	int64_t accept_ms; /* no accept before */
	bool carrier_more; /* it may have bytes that poll does not see */
	size_t in_size;
	unsigned char in[IN_SIZE];
};

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void put_le(unsigned char *p, uint64_t v, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		p[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get_le(const unsigned char *p, size_t bytes)
{
	uint64_t v = 0;
	for (size_t i = 0; i < bytes; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static uint32_t frame_check(const unsigned char *frame, size_t length)
{
	return (uint32_t)crc32(crc32(0, NULL, 0), frame + 4, (uInt)(MUX_HEADER - 4 + length));
}

/* --- to the carrier --- */

static size_t out_pending(const struct mux *m)
{
	return m->out.size - m->out_at;
}

/* The payload already stands MUX_HEADER behind p, at the end of what buf_reserve gave. */
static void frame_finish(
	struct mux *m, unsigned char *p, enum mux_type type, uint32_t id, size_t length)
{
	put_le(p + 4, m->sequence_out++, 4);
	put_le(p + 8, id, 4);
	put_le(p + 12, length, 2);
	p[14] = (unsigned char)type;
	p[15] = MUX_VERSION;
	put_le(p, frame_check(p, length), 4);
	m->out.size += MUX_HEADER + length;
	m->queued += MUX_HEADER + length;
}

/* A frame whose payload is a number of so many bytes (0: it has none). Out of memory is left in m->out. */
static void frame_put(struct mux *m, enum mux_type type, uint32_t id, uint64_t value, size_t bytes)
{
	unsigned char *p = (unsigned char *)buf_reserve(&m->out, MUX_HEADER + 8);
	if (!p)
		return;
	put_le(p + MUX_HEADER, value, bytes);
	frame_finish(m, p, type, id, bytes);
}

static int carrier_flush(struct mux *m)
{
	const struct mux_carrier *carrier = &m->spec->carrier;
	int rc = buf_error(&m->out);
	if (rc)
		return rc;
	/* Also with nothing of ours: the carrier may have kept something. */
	for (;;) {
		size_t n = 0;
		size_t left = out_pending(m);
		rc = carrier->write(carrier->arg, left ? m->out.data + m->out_at : "", left, &n);
		if (rc && rc != -EAGAIN)
			return rc;
		if (n) {
			m->sent_ms = now_ms();
			m->out_at += n;
		}
		if (rc || !n || n == left)
			break;
	}
	if (!out_pending(m)) {
		buf_clear(&m->out);
		m->out_at = 0;
	} else if (m->out_at >= OUT_FULL) {
		buf_consume(&m->out, m->out_at);
		m->out_at = 0;
	}
	return 0;
}

/* --- connections --- */

/* Takes fd, also on failure. A slot must be free. */
static int connection_add(struct mux *m, int fd, uint32_t id)
{
	unsigned slot = 0;
	while (m->connections[slot])
		slot++;
	int rc = mux_connection_new(fd, id, &m->connections[slot]);
	if (!rc)
		m->count++;
	return rc;
}

static void connection_drop(struct mux *m, unsigned slot)
{
	mux_connection_free(m->connections[slot]);
	m->connections[slot] = NULL;
	m->count--;
}

static struct mux_connection *connection_find(struct mux *m, uint32_t id)
{
	for (unsigned i = 0; id && i < MUX_CONNECTIONS; i++)
		if (m->connections[i] && m->connections[i]->id == id)
			return m->connections[i];
	return NULL;
}

/* Ends it when nothing more can come of it. */
static void connection_settle(struct mux *m, unsigned slot)
{
	struct mux_connection *c = m->connections[slot];
	if (!c)
		return;
	mux_connection_flush(c);
	if (c->broken || (c->ended && c->deaf && !c->peer_ended)) {
		if (c->id)
			frame_put(m, MUX_RESET, c->id, 0, 0);
		connection_drop(m, slot);
	} else if (mux_connection_drained(c) && (!c->id || (c->ended && c->peer_ended))) {
		connection_drop(m, slot);
	}
}

/* Would connection_room find any? */
static bool connection_room_is(const struct mux *m)
{
	bool found = m->count < MUX_CONNECTIONS;
	for (unsigned i = 0; !found && i < MUX_CONNECTIONS; i++)
		found = !m->connections[i]->id;
	return found;
}

/* Room for one more: one that is only drained for a slow reader has to make it. */
static bool connection_room(struct mux *m)
{
	for (unsigned i = 0; m->count == MUX_CONNECTIONS && i < MUX_CONNECTIONS; i++)
		if (!m->connections[i]->id)
			connection_drop(m, i);
	return m->count < MUX_CONNECTIONS;
}

static bool flight_room(const struct mux *m)
{
	return out_pending(m) < OUT_FULL &&
		   m->queued - m->acked + MUX_HEADER + MUX_PAYLOAD <= MUX_FLIGHT;
}

/* One frame of what its socket has. False: there was nothing. */
static bool connection_read(struct mux *m, struct mux_connection *c)
{
	size_t n = c->credit < MUX_PAYLOAD ? c->credit : MUX_PAYLOAD;
	unsigned char *p = (unsigned char *)buf_reserve(&m->out, MUX_HEADER + n);
	if (!p)
		return false;
	ssize_t r = recv(c->fd, p + MUX_HEADER, n, MSG_DONTWAIT);
	if (r > 0) {
		frame_finish(m, p, MUX_DATA, c->id, (size_t)r);
		c->credit -= (uint32_t)r;
		/* What follows a short read, more or the end, poll will tell. */
		c->readable = (size_t)r == n;
		return true;
	}
	if (r < 0 && errno == EINTR)
		return true;
	c->readable = false;
	if (!r) {
		c->ended = true;
		frame_put(m, MUX_END, c->id, 0, 0);
	} else if (errno != EAGAIN) {
		c->broken = true;
	}
	return false;
}

/* Fills what goes to the carrier: what the other side waits for first, then each readable socket in turn. */
static void carrier_fill(struct mux *m)
{
	if (m->arrived - m->arrived_told >= ACK_STEP) {
		frame_put(m, MUX_ACK, 0, m->arrived, 8);
		m->arrived_told = m->arrived;
	}
	for (unsigned i = 0; i < MUX_CONNECTIONS; i++) {
		struct mux_connection *c = m->connections[i];
		if (!c || !c->id || c->peer_ended || c->owed < CREDIT_STEP)
			continue;
		frame_put(m, MUX_CREDIT, c->id, c->owed, 4);
		c->window += c->owed;
		c->owed = 0;
	}
	bool progress = true;
	while (progress && flight_room(m)) {
		progress = false;
		for (unsigned i = 0; i < MUX_CONNECTIONS && flight_room(m); i++) {
			unsigned slot = m->turn++ % MUX_CONNECTIONS;
			struct mux_connection *c = m->connections[slot];
			if (!c || !c->readable || !mux_connection_wanted(c))
				continue;
			progress |= connection_read(m, c);
			connection_settle(m, slot);
		}
	}
}

/* --- from the carrier --- */

static int frame_open(struct mux *m, uint32_t id)
{
	if (m->spec->listener >= 0 || !id || id != m->newest + 1)
		return -EPROTO;
	m->newest = id;
	int fd = connection_room(m) ? m->spec->connect(m->spec->connect_arg) : -EMFILE;
	if (fd >= 0 && connection_add(m, fd, id) == 0)
		return 0;
	frame_put(m, MUX_RESET, id, 0, 0);
	return out_pending(m) > OUT_MAX ? -EPROTO : 0;
}

static int frame_data(struct mux_connection *c, const unsigned char *p, size_t n)
{
	if (c->peer_ended || n > c->window)
		return -EPROTO;
	c->window -= (uint32_t)n;
	size_t done = mux_connection_drained(c) && !c->deaf ? mux_connection_send(c, p, n) : 0;
	if (!c->deaf)
		buf_add(&c->out, p + done, n - done);
	return buf_error(&c->out);
}

static int frame_credit(struct mux_connection *c, uint32_t more)
{
	if (more > MUX_WINDOW - c->credit)
		return -EPROTO;
	c->credit += more;
	return 0;
}

static int frame_ack(struct mux *m, uint64_t arrived)
{
	if (arrived < m->acked || arrived > m->queued - out_pending(m))
		return -EPROTO;
	m->acked = arrived;
	return 0;
}

static unsigned slot_of(const struct mux *m, const struct mux_connection *c)
{
	unsigned slot = 0;
	while (m->connections[slot] != c)
		slot++;
	return slot;
}

static int frame_of_connection(
	struct mux *m, enum mux_type type, uint32_t id, const unsigned char *p, size_t n)
{
	if (!id || id > m->newest)
		return -EPROTO;
	struct mux_connection *c = connection_find(m, id);
	/* One that has ended here: the other side did not know yet when it sent this. */
	if (!c)
		return 0;
	int rc = 0;
	switch (type) {
	case MUX_DATA:
		rc = frame_data(c, p, n);
		break;
	case MUX_CREDIT:
		rc = frame_credit(c, (uint32_t)get_le(p, 4));
		break;
	case MUX_END:
		rc = c->peer_ended ? -EPROTO : 0;
		c->peer_ended = true;
		break;
	default: /* MUX_RESET */
		mux_connection_reset(c);
		break;
	}
	if (!rc)
		connection_settle(m, slot_of(m, c));
	return rc;
}

static bool frame_length_fits(unsigned type, size_t length)
{
	switch (type) {
	case MUX_DATA:
		return length > 0 && length <= MUX_PAYLOAD;
	case MUX_CREDIT:
		return length == 4;
	case MUX_ACK:
		return length == 8;
	case MUX_OPEN:
	case MUX_END:
	case MUX_RESET:
	case MUX_PING:
		return length == 0;
	default:
		return false;
	}
}

/* The frame at p, of which n bytes are there. Its size, 0 if some are missing, or a negative errno. */
static ssize_t frame_take(struct mux *m, const unsigned char *p, size_t n)
{
	if (n < MUX_HEADER)
		return 0;
	size_t length = (size_t)get_le(p + 12, 2);
	/* Before the check, so that a header gone wrong is not waited for. */
	if (p[15] != MUX_VERSION || !frame_length_fits(p[14], length) ||
		get_le(p + 4, 4) != m->sequence_in)
		return -EPROTO;
	if (n < MUX_HEADER + length)
		return 0;
	if (get_le(p, 4) != frame_check(p, length))
		return -EPROTO;
	m->sequence_in++;
	m->heard_ms = now_ms();
	enum mux_type type = p[14];
	uint32_t id = (uint32_t)get_le(p + 8, 4);
	const unsigned char *payload = p + MUX_HEADER;
	int rc = 0;
	if (type == MUX_OPEN)
		rc = frame_open(m, id);
	else if (type == MUX_ACK)
		rc = id ? -EPROTO : frame_ack(m, get_le(payload, 8));
	else if (type == MUX_PING)
		rc = id ? -EPROTO : 0;
	else
		rc = frame_of_connection(m, type, id, payload, length);
	return rc ? rc : (ssize_t)(MUX_HEADER + length);
}

static int frames_take(struct mux *m)
{
	size_t at = 0;
	for (;;) {
		ssize_t r = frame_take(m, m->in + at, m->in_size - at);
		if (r < 0)
			return (int)r;
		if (!r)
			break;
		at += (size_t)r;
	}
	memmove(m->in, m->in + at, m->in_size - at);
	m->in_size -= at;
	return 0;
}

static int carrier_read(struct mux *m)
{
	const struct mux_carrier *carrier = &m->spec->carrier;
	m->carrier_more = false;
	for (size_t turn = 0; turn < TURN_MAX;) {
		size_t n = 0;
		int rc = carrier->read(carrier->arg, m->in + m->in_size, IN_SIZE - m->in_size, &n);
		if (rc == -EAGAIN)
			return 0;
		if (rc)
			return rc;
		turn += n;
		m->arrived += n;
		m->in_size += n;
		rc = frames_take(m);
		if (rc)
			return rc;
	}
	m->carrier_more = true;
	return 0;
}

/* --- the loop --- */

static int listener_accept(struct mux *m)
{
	/* The last number is not used, so that the next never wraps. */
	if (m->newest == UINT32_MAX)
		return -EOVERFLOW;
	int fd = accept4(m->spec->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0) {
		if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
			return 0;
		if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
			return -errno;
		m->accept_ms = now_ms() + ACCEPT_PAUSE_MS;
		return 0;
	}
	/* Made when somebody is there for it, not before: what is drained is not cut off for nobody. */
	if (!connection_room(m)) {
		close(fd);
		return 0;
	}
	if (connection_add(m, fd, m->newest + 1)) {
		/* Without memory that one was broken off; the others go on. */
		m->accept_ms = now_ms() + ACCEPT_PAUSE_MS;
		return 0;
	}
	frame_put(m, MUX_OPEN, ++m->newest, 0, 0);
	return 0;
}

/* Sets what poll waits for on one connection. True: it need not wait, there is something to read. */
static bool connection_poll(const struct mux *m, const struct mux_connection *c, struct pollfd *p)
{
	*p = (struct pollfd){.fd = -1};
	if (!c)
		return false;
	if (!mux_connection_drained(c))
		p->events |= POLLOUT;
	if (mux_connection_wanted(c) && !c->readable)
		p->events |= POLLIN;
	/*
	 * A hang-up is told even if nothing is waited for. It is of use where it ends something: else it would be told for ever, while
	 * what came before it cannot be read yet.
	 */
	if (p->events || c->ended || (c->deaf && !c->credit))
		p->fd = c->fd;
	return mux_connection_wanted(c) && c->readable && flight_room(m);
}

static int until(int timeout, int64_t at, int64_t now)
{
	if (at <= now)
		return 0;
	return timeout < 0 || at - now < timeout ? (int)(at - now) : timeout;
}

static int wait_events(struct mux *m)
{
	const struct mux_spec *spec = m->spec;
	int64_t now = now_ms();
	int timeout =
		until(-1, m->heard_ms + (spec->silence_ms ? spec->silence_ms : MUX_SILENCE_MS), now);
	if (!out_pending(m))
		timeout = until(timeout, m->sent_ms + (spec->ping_ms ? spec->ping_ms : MUX_PING_MS), now);
	bool accepts = spec->listener >= 0 && out_pending(m) < OUT_FULL && connection_room_is(m);
	if (accepts && m->accept_ms > now) {
		accepts = false;
		timeout = until(timeout, m->accept_ms, now);
	}
	m->polled[POLL_CARRIER] = (struct pollfd){.fd = spec->carrier.poll_fd(spec->carrier.arg),
		.events = spec->carrier.poll_events(spec->carrier.arg, out_pending(m) > 0)};
	m->polled[POLL_STOP] = (struct pollfd){.fd = spec->stop_fd, .events = POLLIN};
	m->polled[POLL_LISTENER] =
		(struct pollfd){.fd = accepts ? spec->listener : -1, .events = POLLIN};
	for (unsigned i = 0; i < MUX_CONNECTIONS; i++)
		if (connection_poll(m, m->connections[i], &m->polled[POLL_CONNECTIONS + i]))
			timeout = 0;
	if (m->carrier_more)
		timeout = 0;
	if (poll(m->polled, POLL_CONNECTIONS + MUX_CONNECTIONS, timeout) >= 0)
		return 0;
	if (errno != EINTR)
		return -errno;
	for (unsigned i = 0; i < POLL_CONNECTIONS + MUX_CONNECTIONS; i++)
		m->polled[i].revents = 0;
	return 0;
}

static void connections_serve(struct mux *m)
{
	for (unsigned i = 0; i < MUX_CONNECTIONS; i++) {
		struct mux_connection *c = m->connections[i];
		const struct pollfd *p = &m->polled[POLL_CONNECTIONS + i];
		if (!c || !p->revents || p->fd != c->fd)
			continue;
		if (p->revents & (POLLIN | POLLHUP | POLLERR))
			c->readable = true;
		/* Nobody is there any more. Without credit that would never be read, if the other side's socket is not read either. */
		if (p->revents & (POLLHUP | POLLERR) && (c->ended || c->deaf)) {
			c->broken = !c->ended && !c->credit;
			mux_connection_deafen(c);
		}
		connection_settle(m, i);
	}
}

static int check_clock(struct mux *m)
{
	const struct mux_spec *spec = m->spec;
	int64_t now = now_ms();
	if (now - m->heard_ms >= (spec->silence_ms ? spec->silence_ms : MUX_SILENCE_MS))
		return -ETIMEDOUT;
	if (!out_pending(m) && now - m->sent_ms >= (spec->ping_ms ? spec->ping_ms : MUX_PING_MS)) {
		frame_put(m, MUX_PING, 0, 0, 0);
		m->sent_ms = now;
	}
	return 0;
}

/* 1: stopped. */
static int serve_turn(struct mux *m)
{
	carrier_fill(m);
	int rc = carrier_flush(m);
	if (!rc)
		rc = wait_events(m);
	if (rc)
		return rc;
	if (m->polled[POLL_STOP].revents)
		return 1;
	/* Sockets before the carrier: what it brings may close one, and another get its place and number. */
	connections_serve(m);
	if (m->polled[POLL_CARRIER].revents || m->carrier_more)
		rc = carrier_read(m);
	if (!rc && m->polled[POLL_LISTENER].revents)
		rc = listener_accept(m);
	return rc ? rc : check_clock(m);
}

int mux_run(const struct mux_spec *spec)
{
	struct mux *m = calloc(1, sizeof *m);
	if (!m)
		return -ENOMEM;
	m->spec = spec;
	m->sent_ms = m->heard_ms = now_ms();
	m->carrier_more = true;
	int rc = 0;
	while (!rc)
		rc = serve_turn(m);
	for (unsigned i = 0; i < MUX_CONNECTIONS; i++)
		mux_connection_free(m->connections[i]);
	buf_release(&m->out);
	free(m);
	return rc > 0 ? 0 : rc;
}
